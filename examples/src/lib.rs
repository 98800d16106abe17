//! Programs a PaaS builder would start from.
