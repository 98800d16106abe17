//! Several arpanet2 hosts on one machine, made of namespaces: cut, heal, kill.
