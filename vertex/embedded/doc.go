// Package embedded is the language model that Giggle has in its binary, so that a fresh machine answers without a
// download, and the process that runs it.
//
// A Runner serves calls. It starts a child (`giggle model-runner`, cmd/giggle/modelrunner, which is Serve) at the first
// of them and ends it when there was none for a while: the memory of the model is then free again. The two speak JSON
// lines over the child's standard input and output. The child never outlives its parent.
//
// The built-in model is tiny: it was trained by the project on jokes that the project wrote (hack/tinymodel), and it
// only knows such jokes. It says its name and what it is; anything better is Ollama's matter.
package embedded
