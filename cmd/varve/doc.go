// Command varve is the broker and its command line.
//
//	main.go          process entry: signals, exit status
//	root.go          the command tree and the flags that every command has
//	dial.go          clients of a broker
//	print.go         tables and JSON
//	serve.go         varve serve: the broker itself
//	NOUN.go          a group of commands: topic, group, config, broker, cluster, bucket, segment, bench
//	NOUN_VERB.go     one command each, so that "varve topic describe" is in topic_describe.go
//	load/            the load generator behind varve bench
//
// Every command but serve, bucket and segment speaks nothing but Kafka's protocol, so it works against any Kafka broker.
// A command exits 0 only where everything that it was asked to do was done; errors go to standard error and say what to do.
package main
