// Package llama runs language models of the Llama architecture from GGUF files, in Go alone: weights of F32, F16 and
// Q8_0, sentencepiece and byte pair vocabularies, a cache of keys and values, sampling.
//
// It serves the embedded model of package embedded, which is tiny. Larger models belong to Ollama or llama.cpp, which
// use the machine's vector units; here the code is short instead. Where the two could differ, llama.cpp is right:
// test/llama compares them.
package llama
