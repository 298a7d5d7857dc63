# An index of the project's commands; each does its work in a script or in cargo.
.PHONY: help demo test check lint static sbom bench crash-sweep fuzz generate

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## The main job from nothing: a real cluster, Helm, a RuntimeMigration, two nodes change their runtime
	tests/demo

test: ## Set up and run all tests, the lab included
	tests/all

check: ## Tests that need no cluster of nodes
	cargo test --locked

lint: ## Formatting, lints, spelling, documentation of the code
	cargo fmt --check
	cargo clippy --all-targets --features lab --locked -- -D warnings
	bash -euc '. tests/setup.sh; check_spelling; check_rustdoc'

static: ## The static binary that is shipped
	bash -euc '. tests/setup.sh; build_static'

sbom: static ## A bill of materials beside the static binary (CycloneDX)
	bash -euc '. tests/setup.sh; sbom'

bench: ## Benchmarks on real nodes, beside the procedure of kubernetes.io
	benches/run

crash-sweep: ## Nodes die at every moment of a migration, on both clusters: some hours (CUTS=20: so many of each)
	SWEEP=whole cargo test --locked --test host crash_sweep -- --nocapture
	CUTS=$${CUTS:-all} tests/e2e/power-cuts
	TRANSSHIP_CLUSTER=k136 CUTS=$${CUTS:-all} tests/e2e/power-cuts

fuzz: ## Readers of foreign texts against more broken ones (FUZZ_CASES=100000), other ones each time
	FUZZ_CASES=$${FUZZ_CASES:-100000} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} \
		cargo test --locked --lib --test pure -- fuzz_ --nocapture

generate: ## Write the generated files (CRDs, manifests, what is proven of which move) anew
	UPDATE=1 cargo test --locked --test api -- crds:: chart::
	UPDATE=1 cargo test --locked --test host -- coverage::
