# `make demo` and `make test` set up what they need in $(VENV) and run.
PYTHON ?= python3
VENV ?= .venv
DEMO := build/demo
RUN := $(VENV)/bin/python

STORIES ?= 200
SEED ?= 0
CASES ?= 400

.PHONY: demo test torture fuzz lint clean

# Scenes are drawn, packed into records, learnt from scratch, scored, predicted and exported.
demo: $(VENV)/.installed
	$(RUN) dataset/make_sample_data.py --output_dir $(DEMO)/data
	$(RUN) create_pascal_tf_record.py --dataset $(DEMO)/data/sample.json --data_dir $(DEMO)/data \
	  --train_data_list $(DEMO)/data/train.txt --valid_data_list $(DEMO)/data/val.txt --output_path $(DEMO)
	$(RUN) train.py --recipe recipes/demo.flags --dataset $(DEMO)/data/sample.json --data_dir $(DEMO) \
	  --model_dir $(DEMO)/model --clean_model_dir
	$(RUN) evaluate.py --model_dir $(DEMO)/model --image_data_dir $(DEMO)/data/JPEGImages \
	  --label_data_dir $(DEMO)/data/SegmentationClassAug --evaluation_data_list $(DEMO)/data/val.txt \
	  > $(DEMO)/scores.txt
	cat $(DEMO)/scores.txt
	head -n 12 $(DEMO)/data/val.txt | sed 's/$$/.jpg/' > $(DEMO)/val_images.txt
	$(RUN) inference.py --model_dir $(DEMO)/model --data_dir $(DEMO)/data/JPEGImages \
	  --infer_data_list $(DEMO)/val_images.txt --output_dir $(DEMO)/masks --overlay
	$(RUN) export_inference_graph.py --model_dir $(DEMO)/model --export_dir $(DEMO)/export
	@echo
	@grep '^mean Inter' $(DEMO)/scores.txt
	@name=$$(head -n 1 $(DEMO)/data/val.txt); \
	  echo "A mask:     $(DEMO)/masks/$${name}_mask.png"; \
	  echo "An overlay: $(DEMO)/masks/$${name}_overlay.png"

# All tests except the laboratory's; or those of FILES, without workers: make test FILES=tests/losses_test.py
# pytest cannot do without a stderr, which daemons may close.
test: $(VENV)/.installed-dev
	true >&2 || exec 2>&1; $(RUN) -m pytest $(if $(FILES),-n 0,-m "not laboratory") $(PYTEST_FLAGS) $(FILES)

# Random stories of trainings that are killed, damaged and resumed: minutes to hours.
torture: $(VENV)/.installed
	$(RUN) tests/torture/torture.py --stories $(STORIES) --seed $(SEED)

# Broken inputs, CASES of them, for every script and tool.
fuzz: $(VENV)/.installed
	$(RUN) tests/fuzz/fuzz.py --cases $(CASES) --seed $(SEED)

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m mypy

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf build .venv*
