// Package client is the SDK for Go programs that produce to and consume from Varve, or any Kafka broker: a thin layer over
// franz-go that sets what a careful program would set anyway and leaves the rest to it. It imports nothing else of this module.
//
//	producer.go  Producer: every record acknowledged by all in-sync replicas, no duplicates from retries
//	consumer.go  Consumer: a member of a group, at least once
//	options.go   what both share
//
// What it does not cover (transactions, administration, manual assignment) is a method call away: Client returns the
// franz-go client underneath.
package client
