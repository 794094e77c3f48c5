// Package lint holds the rules of the house that a compiler does not know, as tests: `go test ./internal/lint` takes about a
// second. It has no code of its own; what go vet and golangci-lint know is in .golangci.yml.
//
//	tree_test.go     the parsed tree that every rule looks at
//	imports_test.go  which package may import which, and where each outside dependency lives
//	calls_test.go    calls that go around a seam: the clock, randomness, the network, the process
//	size_test.go     length of files and functions; testdata/size_allow.txt lists those that are longer and may only shrink
//	names_test.go    package comments, file names, init functions, naked goroutines
//
// To change a table, say why in the commit: a rule that is in the way is a question, not an obstacle.
package lint
