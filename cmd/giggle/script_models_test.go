//go:build models

package main

import "testing"

// TestModelsScripts runs the scripts that need the image ollama/ollama and its program: `make test-models` makes both.
func TestModelsScripts(t *testing.T) { runScripts(t, "test/scripts/models") }
