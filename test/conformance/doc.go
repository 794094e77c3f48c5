// Command conformance runs other people's client suites against a fresh broker each and prints the score beside what is
// expected and what Apache Kafka reaches. `make conformance` runs it; it ends with 0 where every suite came to its expected score.
//
// The scripts are not part of this repository: CASES_DIR (default ../shared/cases) names their folder. Each takes HOST:PORT,
// installs what it needs, and ends with "NAME: passed N, failed M, reference R". Cases that need what is not built yet are left
// out of a copy of the script, and listed.
//
//	main.go     the suites, one after the other, and the table
//	exclude.go  the cases that are left out, with the reason, and how
//	script.go   one script: run, parse, judge
package main
