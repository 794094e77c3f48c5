// Package e2e drives bin/varve as a user would: real processes, real clients, a real S3 server. The programs under test/
// that make targets run at full length (torture, tierscale, demo) run here in short forms.
package e2e
