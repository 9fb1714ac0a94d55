CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: test check cuda-toolchain cusim

test: cuda-toolchain
	$(CARGO) test --workspace

check:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Finds nvcc, or fetches one.
cuda-toolchain:
	scripts/cuda-toolchain.sh

# The CUDA driver in software: LD_LIBRARY_PATH=target/cusim makes any cudarc program use it.
cusim:
	$(CARGO) build --release -p cusim
	mkdir -p $(TARGET_DIR)/cusim
	cp $(TARGET_DIR)/release/libcusim.so $(TARGET_DIR)/cusim/libcuda.so.1.new
	mv $(TARGET_DIR)/cusim/libcuda.so.1.new $(TARGET_DIR)/cusim/libcuda.so.1
