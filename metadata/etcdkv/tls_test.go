package etcdkv

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/varvelog/varve/internal/base"
	"github.com/varvelog/varve/internal/testutil/authority"
)

// issue writes a node's certificate of an authority.
func issue(a *authority.Authority, serial int64) *TLS {
	cert, key := a.Issue("node", serial)
	return &TLS{CertFile: cert, KeyFile: key, CAFile: a.Path()}
}

func TestTLS(t *testing.T) {
	c := newTrio(t, 3)
	ours := authority.New(t)
	c.tls = issue(ours, 1)
	c.start(1, 2, 3)
	c.put(c.client(9).KV(), "/k", "v")
	c.want(c.members[1].KV(), "/k", "v")
	c.crash(2)
	c.wipe(2)
	c.start(2)
	c.want(c.members[2].KV(), "/k", "v")

	// So do the connections that the commands make.
	if err := c.members[1].MoveLeader(c.context(), 3); err != nil {
		t.Error(err)
	}
	infos, err := c.members[1].Members(c.context())
	for _, info := range infos {
		if !info.Healthy {
			t.Errorf("%+v", info)
		}
	}
	if err != nil || len(infos) != 3 {
		t.Errorf("%d members, %v", len(infos), err)
	}

	// A new certificate under the old name is used from the next connection on.
	issue(ours, 2)
	shown := int64(0)
	d := tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		shown = s.PeerCertificates[0].SerialNumber.Int64()
		return nil
	}}
	if conn, err := tls.Dial("tcp", c.voters[0].PeerAddr, &d); err != nil || shown != 2 {
		t.Errorf("after the rotation: serial %d, %v", shown, err)
	} else {
		_ = conn.Close()
	}

	// Neither without a certificate nor with that of another authority, whether it is a client or a voter whose disk is empty.
	c.stop(3)
	for what, files := range map[string]*TLS{"asks for a certificate, this node has none": nil, "does not trust its certificate": issue(authority.New(t), 1)} {
		for _, id := range []base.BrokerID{3, 10} {
			opts := c.options(id)
			opts.TLS, opts.DataDir = files, t.TempDir()
			if id == 10 {
				opts.ClientAddr = ""
			}
			m, err := c.open(opts)
			if err == nil {
				stop(t, m)
			}
			if !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), what) {
				t.Errorf("node %d: %v, want %q", id, err, what)
			}
		}
	}

	// One with its data is told as well, in place of waiting for the others.
	opts := c.options(3)
	opts.TLS = nil
	if m, err := c.open(opts); !errors.Is(err, ErrCertificate) {
		if err == nil {
			stop(t, m)
		}
		t.Errorf("a voter without its certificate: %v", err)
	}
	c.start(3)
}

// A server that trusts nobody who comes: the other side's word is all that a stranger learns.
func TestTLSRefusedByThePeer(t *testing.T) {
	c := newTrio(t, 3)
	c.tls = issue(authority.New(t), 1)
	c.start(1, 2, 3)
	// It trusts the voters, but they do not know its authority.
	mixed := *issue(authority.New(t), 1)
	both, err := os.ReadFile(mixed.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	known, err := os.ReadFile(c.tls.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mixed.CAFile, append(both, known...), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := c.options(10)
	opts.TLS, opts.ClientAddr = &mixed, ""
	if m, err := c.open(opts); !errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), "does not accept this node's certificate") {
		if err == nil {
			stop(t, m)
		}
		t.Errorf("%v", err)
	}
}

func TestValidateTLS(t *testing.T) {
	good, other := issue(authority.New(t), 1), issue(authority.New(t), 1)
	f := func(what string, files TLS, want string) {
		t.Helper()
		err := files.Validate()
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrCertificate) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	f("good", *good, "")
	f("no key", TLS{CertFile: good.CertFile, CAFile: good.CAFile}, "or none of them")
	f("a missing file", TLS{good.CertFile, good.KeyFile + "x", good.CAFile}, "no such file")
	f("another's key", TLS{good.CertFile, other.KeyFile, good.CAFile}, "does not match")
	f("another's authority", TLS{good.CertFile, good.KeyFile, other.CAFile}, "unknown authority")
	f("a key for an authority", TLS{good.CertFile, good.KeyFile, good.KeyFile}, "holds no certificate")
	a := authority.New(t)
	cert, key := a.Issue("server", 3, x509.ExtKeyUsageServerAuth)
	f("for servers only", TLS{cert, key, a.Path()}, "no client certificate")
}
