//! An encrypted overlay for arpanet2: WireGuard in this process, isolated by routing in a namespace of its own.
