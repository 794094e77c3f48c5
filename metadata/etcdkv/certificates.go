package etcdkv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// ErrCertificate says that this node and the voters do not accept each other's certificates, or that only one side has any.
var ErrCertificate = errors.New("the certificates of etcd's connections do not fit")

// TLS names the files (PEM) of one certificate, its key, and the authorities that signed those of all members and clients.
// With it peers and clients are authenticated both ways: whoever has no certificate of these authorities is refused before etcd reads
// a byte. The certificate must be good for server and for client use, and name the host at which others reach this node; of a client
// that names addresses etcd checks that it comes from one of them.
//
// Certificate and key are read again for each new connection, so they are rotated by replacing the files (each by a rename);
// the authorities are read at the start only.
type TLS struct {
	CertFile, KeyFile, CAFile string
}

// Validate reports what no peer would accept: files that are missing or do not belong together, and a certificate that the own
// authorities did not sign, or not for both uses.
func (t *TLS) Validate() error {
	if t.CertFile == "" || t.KeyFile == "" || t.CAFile == "" {
		return fmt.Errorf("%w: a certificate, its key and the authorities are needed, or none of them", ErrCertificate)
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return fmt.Errorf("%w: %s with %s: %w", ErrCertificate, t.CertFile, t.KeyFile, err)
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%w: %s holds no certificate", ErrCertificate, t.CAFile)
	}
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for use, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
		if err != nil {
			return fmt.Errorf("%w: %s is no %s certificate of the authorities in %s: %w", ErrCertificate, t.CertFile, use, t.CAFile, err)
		}
	}
	return nil
}

func (t *TLS) info() transport.TLSInfo {
	if t == nil {
		return transport.TLSInfo{}
	}
	return transport.TLSInfo{CertFile: t.CertFile, KeyFile: t.KeyFile, TrustedCAFile: t.CAFile, ClientCertAuth: true}
}

func (t *TLS) scheme() string {
	if t == nil {
		return "http"
	}
	return "https"
}

// distrust tells whether a failed request shows that the two sides do not accept each other's certificates: nil where it may just
// as well be that nobody is there.
func (p *prober) distrust(ctx context.Context, v Voter, err error) error {
	var unverified *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &unverified):
		return fmt.Errorf("this node does not trust its certificate: %w", unverified)
	case errors.Is(err, http.ErrSchemeMismatch):
		return errors.New("it has no certificate, this node has one")
	case errors.As(err, &op) && op.Op == "remote error" && !strings.Contains(op.Err.Error(), "internal error"): // that: while it changes its files
		return fmt.Errorf("it does not accept this node's certificate: %w", op.Err)
	case p.opts.TLS == nil && p.speaksTLS(ctx, v):
		return errors.New("it asks for a certificate, this node has none")
	}
	return nil
}

// speaksTLS tells whether a server at the address shows a certificate.
func (p *prober) speaksTLS(ctx context.Context, v Voter) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	shown := false
	d := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, // nothing is sent: the question is whether there is one
		VerifyConnection:   func(tls.ConnectionState) error { shown = true; return nil },
	}}
	if conn, err := d.DialContext(ctx, "tcp", v.PeerAddr); err == nil {
		_ = conn.Close()
	}
	return shown
}

// checkTrust refuses to wait where those voters that are there show that waiting is of no use.
func checkTrust(answers []answer) error {
	var refused *answer
	for i, a := range answers {
		switch {
		case a.state != silent:
			return nil
		case a.distrust != nil && refused == nil:
			refused = &answers[i]
		}
	}
	if refused == nil {
		return nil
	}
	return fmt.Errorf("%w: voter %d@%s: %w: all nodes of a cluster need a certificate of the same authorities, good for server and client use, or none of them any",
		ErrCertificate, refused.from.ID, refused.from.PeerAddr, refused.distrust)
}

// checkScheme refuses to let a member wait for peers that it looks for with certificates and that were registered without, or
// the other way round: etcd keeps the addresses of a cluster with their schemes.
func checkScheme(t *TLS, self uint64, members []*membership.Member) error {
	for _, m := range members {
		for _, u := range m.PeerURLs {
			if uint64(m.ID) != self && !strings.HasPrefix(u, t.scheme()+"://") {
				return fmt.Errorf("%w: this cluster knows member %s at %s: certificates are given to a cluster of one voter, before it grows, or at its first start",
					ErrCertificate, m.Name, u)
			}
		}
	}
	return nil
}
