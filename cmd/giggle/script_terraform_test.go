//go:build terraform

package main

import "testing"

// TestTerraformScripts runs the scripts that need Terraform and Google's provider: `make terraform` gets both.
func TestTerraformScripts(t *testing.T) { runScripts(t, "test/scripts/terraform") }
