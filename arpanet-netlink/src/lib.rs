//! Linux plumbing for arpanet2: namespaces, links, routes, rules, and a ledger that undoes them.
