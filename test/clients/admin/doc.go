// Command admin runs the admin tools of Apache Kafka 4.3, unmodified, against Varve and against Apache Kafka, with the same
// commands in the same order (commands.txt), and compares what they print and their exit status.
//
// Addresses, ids, paths and sizes are replaced by words first, runs of blanks by one, and the lines of a command are sorted: the
// tools print hash maps. A difference that stays must stand, as printed here, in a fenced block of ../DIFFERENCES.md, which says
// why; any other makes the program fail.
//
//	main.go       starts both brokers and walks through the commands
//	script.go     commands.txt: placeholders, and the verbs that are no tool (records, commits, members)
//	tools.go      the JVM that runs the tools (../java/AdminTools.java)
//	normalise.go  what may differ, and the comparison
package main
