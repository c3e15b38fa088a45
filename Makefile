# The targets, with what each does: make help

GO        ?= go
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS   := -X main.release=$(VERSION)

# Tools are kept by version, so that an old one is never taken for the new.
GOLANGCI_VERSION  := v2.12.2
GOTESTSUM_VERSION := v1.13.0
TOOLS     := $(firstword $(subst :, ,$(shell $(GO) env GOPATH)))/bin
GOLANGCI  := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)
# What the linter remembers holds paths: one cache for each clone.
export GOLANGCI_LINT_CACHE := $(CURDIR)/.run/golangci-lint
GOTESTSUM := $(TOOLS)/gotestsum-$(GOTESTSUM_VERSION)

# One Postgres for all tests, a database of its own for each; see migrations/dbtest.
WITH_POSTGRES := $(GO) run ./migrations/dbtest/server --
TEST      := $(GOTESTSUM) --format standard-quiet --
PACKAGES  ?= ./...
TIMEOUT   ?= 9m
CHECKS    ?= 5000
DATA      ?= .run/data

.DEFAULT_GOAL := help
.PHONY: help build run demo test race sim quality bench lint fmt generate check-generated up clean tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/rrm and bin/rrm-renderer
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/rrm ./cmd/rrm-renderer

run: build ## Start the service with its own Postgres and the demonstration renderer (data in .run/data)
	bin/rrm serve --demo --data-dir $(DATA)

demo: build ## Tell the main story in under two minutes; pictures go to out/
	bin/rrm demo --out out

test: $(GOTESTSUM) ## Run all tests with a Postgres of their own; says at the end what was skipped
	$(WITH_POSTGRES) $(TEST) -timeout $(TIMEOUT) $(PACKAGES)

race: $(GOTESTSUM) ## Run all tests with the race detector (needs gcc; several times slower)
	CGO_ENABLED=1 $(WITH_POSTGRES) $(TEST) -race -timeout 30m $(PACKAGES)

sim: ## Give the domain long random sequences of commands (CHECKS=5000; SEED=N repeats one)
	$(GO) test ./domain/pool -run Random -timeout 30m -rapid.checks=$(CHECKS) $(if $(SEED),-rapid.seed=$(SEED))

quality: ## Compare all placement and scaling policies on real and made-up demand; writes docs/quality.md (QUICK=1: a little of it, in .run/quality)
	$(GO) run ./cmd/rrm/quality $(if $(QUICK),-quick -out .run/quality)

bench: build ## Bookings and releases per second, beside pgbench on the same server
	bin/rrm bench

lint: $(GOLANGCI) ## Check the import rules and the code (.golangci.yml says why)
	$(GOLANGCI) run ./...

fmt: $(GOLANGCI) ## Format the code and sort the imports
	$(GOLANGCI) fmt ./...

generate: ## Make the server's types and the Go client from adapters/httpapi/openapi.yaml
	$(GO) generate ./...

check-generated: ## Fail if the generated code is not what `make generate` makes
	@before=$$(git diff HEAD | git hash-object --stdin; git status --porcelain); \
	$(MAKE) --no-print-directory generate || exit 1; \
	after=$$(git diff HEAD | git hash-object --stdin; git status --porcelain); \
	if [ "$$before" != "$$after" ]; then \
		git --no-pager diff --stat; echo 'Generated code was not current: commit what `make generate` made.' >&2; exit 1; \
	fi

up: ## Start service and Postgres in containers; the first time needs a token, see docker-compose.yml
	docker compose up --build

tools: $(GOLANGCI) $(GOTESTSUM) ## Build the linter and the test runner, in the versions named above

$(GOLANGCI):
	GOBIN=$(TOOLS)/.$(@F) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/.$(@F)/golangci-lint $@ && rmdir $(TOOLS)/.$(@F)

$(GOTESTSUM):
	GOBIN=$(TOOLS)/.$(@F) $(GO) install gotest.tools/gotestsum@$(GOTESTSUM_VERSION)
	mv $(TOOLS)/.$(@F)/gotestsum $@ && rmdir $(TOOLS)/.$(@F)

clean: ## Remove what was built and rendered; the data in .run stay
	rm -rf bin out
