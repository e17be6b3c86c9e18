// Package arch holds the rules of the tree as a test: who may import whom, which libraries belong to which package,
// how many direct dependencies there are, and that every package says what it is. It has no code of its own.
package arch
