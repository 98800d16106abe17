//! Proving a cluster password to a seed, and what that yields, for arpanet2.
