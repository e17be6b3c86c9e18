//go:build long

package main

import "testing"

// TestLongScripts runs the scripts that take minutes.
func TestLongScripts(t *testing.T) { runScripts(t, "test/scripts/long") }
