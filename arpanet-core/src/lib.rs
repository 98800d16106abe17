//! The traits, the address plan and the cluster logic of arpanet2: overlay networking and service discovery for docker clusters.
