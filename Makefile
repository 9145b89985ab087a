# Spanmill: one non-recursive makefile; sources are found by wildcard. `make help` lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
CC ?= gcc
FUZZ_CC ?= clang-14
B := build
S ?= 60
T ?=
SAN ?=

PKGS := libuv libnghttp2 libmicrohttpd yaml-0.1 libprotobuf-c openssl libdeflate zlib libzstd liblz4 libxxhash
# Loaded when first used: only their headers are needed here.
LOADED := libcurl rdkafka libpcre2-8
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpedantic -Werror
CPPFLAGS := -I. -I$(B)/gen -D_GNU_SOURCE -DSPANMILL_VERSION='"$(VERSION)"'
CFLAGS ?= -O2 -g
LIBS = $(shell pkg-config --libs $(PKGS)) -lsnappy -lm -ldl -lpthread
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
ifneq ($(SAN),)
B := build/$(subst $(eval) ,-,$(subst $(shell printf ','),-,$(SAN)))
CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all
endif
COMPILE = $(CC) -std=c11 $(CPPFLAGS) $(PKG_CFLAGS) $(WARN) $(CFLAGS) -MMD -MP

DIRS := base wire net pipeline blocks receivers processors exporters connectors extensions query cmd
SRC := $(sort $(foreach d,$(DIRS),$(wildcard $(d)/*.c $(d)/*/*.c)))
PROTO := $(wildcard wire/proto/*.proto)
PROTO_C := $(PROTO:%.proto=$(B)/gen/%.pb-c.c)
WEB := $(wildcard query/web/*)
LIB_OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out cmd/main.c,$(SRC))) $(PROTO_C:.c=.o)
UNIT_SRC := $(wildcard tests/unit/test_*.c tests/contract/test_*.c)
UNIT := $(UNIT_SRC:%.c=$(B)/%)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
REPLAY := $(FUZZ_SRC:tests/fuzz/%.c=$(B)/replay/%)
# One job per CPU where the caller did not say how many: `make run`, `make test`.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
# "17/245": files compiled by this make, of all. Expanded once per recipe.
COUNT = $(eval COMPILED += x)$(words $(COMPILED))/$(words $(SRC))
BENCH := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/bench_*.c))

.PHONY: all deps unit test check bench fuzz format format-check docs run run-kafka install deb soak clean help lib

all: $(B)/spanmill		## optimised binary in build/

lib: $(B)/libspanmill.a

$(B)/spanmill: $(B)/cmd/main.o $(B)/libspanmill.a
	@echo '  LINK  $@'
	@$(CC) $(CFLAGS) -o $@ $^ $(LDFLAGS) $(LIBS)

$(B)/libspanmill.a: $(LIB_OBJ)
	@echo '  AR    $@'
	@rm -f $@ && $(AR) rcs $@ $^

$(B)/%.o: %.c $(PROTO_C:.c=.h) | deps-check
	@mkdir -p $(@D)
	@echo '  CC    $(COUNT) $<'
	@$(COMPILE) -c -o $@ $<

$(B)/gen/%.pb-c.o: $(B)/gen/%.pb-c.c
	@$(CC) -std=c11 $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: %.proto
	@mkdir -p $(B)/gen
	protoc-c --c_out=$(B)/gen -I. $<

# Generated headers are no by-products: make would delete them once the library is there.
.SECONDARY: $(PROTO_C) $(PROTO_C:.c=.h)

.PHONY: deps-check
deps-check:
	@pkg-config --exists $(PKGS) $(LOADED) || { echo "missing libraries: run 'make deps' first"; exit 1; }

deps:				## install system packages (idempotent; root or sudo)
	@tests/tools/install-deps build

# Only what T picks is built.
PICK = $(if $(T),$(foreach p,$(1),$(if $(findstring $(T),$(notdir $(p))),$(p))),$(1))
.PHONY: unit-programs
unit-programs: $(call PICK,$(UNIT)) $(call PICK,$(REPLAY))
unit: unit-programs		## unit, contract and corpus tests (T=word picks some)
	@tests/tools/run-unit '$(T)' $(UNIT) -- $(REPLAY)

$(B)/tests/%: tests/%.c $(B)/libspanmill.a
	@mkdir -p $(@D)
	@echo '  TEST  $<'
	@$(COMPILE) -o $@ $< $(B)/libspanmill.a $(LDFLAGS) $(LIBS) -lcmocka

$(B)/replay/%: tests/fuzz/%.c tests/fuzz/replay.c $(B)/libspanmill.a
	@mkdir -p $(@D)
	@echo '  TEST  $<'
	@$(COMPILE) -o $@ $< tests/fuzz/replay.c $(B)/libspanmill.a $(LDFLAGS) $(LIBS)

test:				## everything: installs what it needs, builds, unit + integration
	@tests/tools/install-deps test $(if $(T),,java)
	@$(MAKE) --no-print-directory $(PARALLEL) built
	@tests/tools/run-tests '$(T)'

check:				## sanitizers, fuzz targets S seconds each, cppcheck, layers, style, docs
	@tests/tools/install-deps check
	@tests/tools/run-check $(S)

fuzz:				## make fuzz F=otlp_index S=60
	@tests/tools/run-fuzz '$(F)' $(S)

# Fuzz targets: clang only, everything compiled with coverage. Called by tests/tools/run-fuzz with B=build/fuzz. The
# library is also what `make check` takes for "clang without warnings".
FUZZ_CFLAGS = -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
.PHONY: fuzz-lib
fuzz-lib:
	@$(MAKE) CC=$(FUZZ_CC) B=build/fuzz/obj CFLAGS='$(FUZZ_CFLAGS)' build/fuzz/obj/libspanmill.a

$(B)/fuzz/%: tests/fuzz/%.c $(SRC) $(PROTO_C)
	@mkdir -p $(@D)
	@$(MAKE) CC=$(FUZZ_CC) B=$(B)/obj CFLAGS='$(FUZZ_CFLAGS)' $(B)/obj/libspanmill.a
	$(FUZZ_CC) -std=c11 $(CPPFLAGS) -I$(B)/obj/gen $(PKG_CFLAGS) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(B)/obj/libspanmill.a $(LIBS)

bench: all $(BENCH)		## fixed inputs, ratios against a do-nothing sink
	@tests/tools/run-bench

format:
	@clang-format-14 -i $(SRC) $(wildcard */*.h */*/*.h tests/*/*.c)
format-check:
	@clang-format-14 --dry-run -Werror $(SRC) $(wildcard */*.h */*/*.h tests/*/*.c)

docs: all			## docs/components/*.md from the option tables
	@$(B)/spanmill components --docs docs/components

run:				## install what is missing, build, run configs/all-in-one.yaml
	@tests/tools/install-deps build
	@$(MAKE) --no-print-directory $(PARALLEL) built
	@mkdir -p data
	@tests/tools/run-all-in-one

run-kafka:			## the same with Kafka, a bucket and one process per role (installs what is missing)
	@tests/tools/install-deps build python java
	@$(MAKE) --no-print-directory $(PARALLEL) built
	@tests/tools/run-kafka

.PHONY: built
built:				# all, saying so when there is something to do
	@$(MAKE) -q all 2>/dev/null || echo "building $(B)/spanmill: $(words $(SRC)) files, $$(nproc) at a time (the first time a minute or two)"
	@$(MAKE) --no-print-directory all

install: all
	install -Dm755 $(B)/spanmill $(DESTDIR)$(PREFIX)/bin/spanmill
	install -Dm644 configs/all-in-one.yaml $(DESTDIR)/etc/spanmill/spanmill.yaml
	install -Dm644 configs/packaging/spanmill.service $(DESTDIR)/lib/systemd/system/spanmill.service
PREFIX ?= /usr

soak:				## the fault ledgers for S seconds
	@tests/tools/run-soak $(S)

clean:
	rm -rf build

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

-include $(shell find $(B) -name '*.d' 2>/dev/null)
