// Package llama compares vertex/llama with llama.cpp, which npm's node-llama-cpp ships prebuilt: the same files, the
// same tokens, the same first choices. `make test-models` installs it and runs the tests, which have the build tag
// "models".
package llama
