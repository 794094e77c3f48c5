// Command conformance runs other people's client suites against a fresh broker each and prints the score beside the one that
// Apache Kafka reaches. `make conformance` runs it.
//
// The scripts are not part of this repository: CASES_DIR (default ../shared/cases) names their folder. Each takes HOST:PORT,
// installs what it needs, and ends with "NAME: passed N, failed M, reference R".
//
//	main.go    the suites, one after the other, and the table
//	script.go  one script: run, parse, judge
package main
