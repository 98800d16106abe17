//! A Runtime for arpanet2 without docker: a container is a process in a network namespace of its own.
