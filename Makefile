# Synego. `make` lists what there is to make.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
BIN := target/debug

.PHONY: help setup build release profile demo test test-rust test-go test-node check fix gen bench count fuzz soak-identity soak-lifecycle soak-keeper clean

help: ## this list
	@printf 'make …\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

setup: ## install what is missing (Nginx, npm packages, Go modules)
	@scripts/setup

build: setup ## build synego, synego-master, synego-sidecar and the example services
	@cargo build --quiet --workspace --bins
	@cd examples/shop/orders && go build -o bin/orders .

release: setup ## build the programs for production, into target/dist/bin
	@scripts/release

profile: ## measure anew which code runs under load, for `make release` (about 30 minutes; needs rustup)
	@scripts/profile

demo: build ## set up, build and run the example mesh; Ctrl-C ends it
	@scripts/demo

test: ## set up, build, lint and test everything in every language
	@scripts/setup --test
	@scripts/test

check: ## format, lints, architecture: reads only
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	cargo fmt --manifest-path bench/load/Cargo.toml --check
	cargo clippy --quiet --manifest-path bench/load/Cargo.toml --target-dir target --all-targets -- -D warnings
	cargo fmt --manifest-path bench/pingora/Cargo.toml --check
	cd sdk-go && test -z "$$(gofmt -l .)" && go vet ./...
	cd examples/shop/orders && test -z "$$(gofmt -l .)" && go vet ./...
	npm run --silent --workspace sdk-node check

fix: ## format, and apply what the linters can
	cargo fmt --all
	cargo clippy --quiet --workspace --all-targets --fix --allow-dirty --allow-staged
	cd sdk-go && gofmt -w . && cd ../examples/shop/orders && gofmt -w .

gen: setup ## write generated code anew: protobuf in three languages, the JSON Schema, the reference pages
	@scripts/gen

bench: ## measure the data plane beside Nginx, HAProxy, Envoy and Pingora, into bench/RESULTS.md
	@scripts/bench

count: ## count the instructions of the steps of both planes, and fail when one rose by more than 5 %
	@scripts/count

fuzz: ## send what a machine thinks up to everything that reads bytes, FUZZ_SECONDS (60) for each target
	@scripts/fuzz

soak-identity: ## certificates of 60 s under load for 10 minutes, with a rotation of the root and masters that are away
	@scripts/soak-identity

soak-lifecycle: ## reloads, restarts, crashes, jobs, floods and ends at their full counts, in about two hours
	@scripts/soak-lifecycle

soak-keeper: ## kill the part that proxies 20 times at 500 requests a second, and replace every program at 1,000
	@scripts/soak-lifecycle 4 5

clean: ## remove what was built
	cargo clean
	rm -rf fuzz/target fuzz/found fuzz/coverage
	rm -rf node_modules sdk-node/dist examples/shop/orders/bin
