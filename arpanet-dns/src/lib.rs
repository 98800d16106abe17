//! A DNS server over any Discovery of arpanet2.
