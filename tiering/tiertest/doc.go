// Package tiertest is the test bench of tiering and compaction: a hot store in memory that seals (Source), a bucket and a
// metadata store whose n-th operation fails or loses its reply or ends the process (Faults), and an Env that wires them and
// can be restarted. Only tests import it.
package tiertest
