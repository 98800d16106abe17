# What CI runs, by the same names. `just ci` is all of it.

ci: fmt clippy doc test

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --locked

test:
    cargo test --workspace

# Everything that needs root must run, not skip.
test-live:
    ARPANET_LIVE=root cargo test --workspace

deny:
    cargo deny check

demo:
    cargo run --release --bin arpanet2 -- demo

# Five minutes of containers, agents and engines coming and going at random; all has to agree then. Root, docker.
churn SEED="1":
    ARPANET_LIVE=root,docker ARPANET_CHURN={{SEED}} cargo test -p arpanet-cli --test lab two_hundred -- --ignored --nocapture

# arpanet2 beside its peers, into README.md and docs/performance.md. Root, on a machine that does nothing else.
bench *ARGS:
    ARPANET_CONSUL=$(.ci/consul target/consul) ARPANET_WIREGUARD_GO=$(.ci/wireguard-go target/wireguard-go) \
        cargo run --release --bin arpanet2 -- bench --into README.md --into docs/performance.md {{ARGS}}

# What holds after anything at all, in virtual time: two thousand seeds from this one on.
chaos SEED="1":
    ARPANET_CHAOS={{SEED}}:2000 cargo test --release -p arpanet-gossip --test simulation chaos
    ARPANET_CHAOS={{SEED}}:2000 cargo test -p arpanet-core --test chaos

# The same with real agents on four hosts of a lab, for some minutes, on a machine that does nothing else. Root.
chaos-lab SEED="1" STEPS="120":
    ARPANET_LIVE=root ARPANET_CHAOS_LAB={{SEED}}:{{STEPS}} cargo test -p arpanet-cli --test lab chaos::what -- --ignored --nocapture

# And with a docker engine on each host, which is killed too. Root, docker.
chaos-engines SEED="1" STEPS="48":
    ARPANET_LIVE=root,docker ARPANET_CHAOS_LAB={{SEED}}:{{STEPS}} cargo test -p arpanet-cli --test lab chaos::engines_too -- --nocapture

# Thirty hosts with an agent each. Root.
lab-30:
    ARPANET_LIVE=root cargo test -p arpanet-cli --test lab thirty -- --ignored --nocapture

# What a large cluster costs, in virtual time, and DNS over a large catalogue. 5 GB of memory.
bench-scale:
    cargo bench -p arpanet-gossip --bench scale
    cargo bench -p arpanet-dns --bench many

# Docker engines beside Docker Swarm's, in one run. Root, docker.
bench-docker ROUNDS="10":
    cargo bench -p arpanet-cli --bench docker {{ROUNDS}}

# A cluster with consul beside consul alone, in one run. Root, consul.
bench-consul ROUNDS="5":
    cargo bench -p arpanet-cli --bench consul {{ROUNDS}}
    cargo bench -p arpanet-consul --bench beside

# A join over weave beside the routers alone, in one run. Root, and ARPANET_WEAVER names a router's program.
bench-weave ROUNDS="5":
    cargo bench -p arpanet-cli --bench weave {{ROUNDS}}

# Every fuzz target for ten seconds.
fuzz-short:
    .ci/fuzz 10

# Every fuzz target for a while, in seconds each.
fuzz SECONDS="600":
    .ci/fuzz {{SECONDS}}
