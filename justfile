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
