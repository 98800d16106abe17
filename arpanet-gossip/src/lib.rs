//! Membership and a replicated, signed catalogue for arpanet2, and a Discovery on it.
