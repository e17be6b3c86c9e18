// Command tinymodel trains the model that is built into giggle: a Llama of about a million parameters, on jokes that
// the project wrote (corpus/). It makes the text, the vocabulary and the weights, and writes a GGUF file. The same
// source makes the same file on the same kind of processor.
//
// It serves the developers of the project only; what it has made is vertex/embedded/tiny.gguf.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"

	"giggle/vertex/llama"
	"giggle/vertex/llama/gguf"
)

func main() {
	log.SetFlags(log.Ltime)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tinymodel:", err)
		os.Exit(1)
	}
}

func run() error {
	out := flag.String("out", "tiny.gguf", "GGUF file to write, with weights as F16")
	checkpoint := flag.String("checkpoint", "tiny.checkpoint", "file to go on from after an interruption")
	steps := flag.Int("steps", 2200, "steps of the training")
	threads := flag.Int("threads", 2, "goroutines; the result does not depend on it")
	only := flag.String("report", "", "train nothing: write what the model in this GGUF file is worth")
	flag.Parse()
	c, err := readCorpus()
	if err != nil {
		return err
	}
	if *only != "" {
		m, err := llama.Open(*only)
		if err != nil {
			return err
		}
		return report(os.Stdout, c, m)
	}
	v := c.vocabulary(vocabularySize)
	t, err := llama.NewTokenizer(v)
	if err != nil {
		return err
	}
	log.Printf("%s; sums by %s", c.size(), kernel)
	n, err := train(c, t, *checkpoint, *steps, *threads)
	if err != nil {
		return err
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	return errors.Join(export(n, v, gguf.F16).Write(f), f.Close())
}
