// Package broker wires the packages into one process: Config, Seams, the table of modules and their dependencies. It has no
// behaviour of its own. Modules start as soon as what they need has started and stop in the reverse order (modules.go).
package broker
