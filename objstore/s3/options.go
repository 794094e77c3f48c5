package s3

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/varvelog/varve/objstore"
)

// Options configures a Bucket.
type Options struct {
	Bucket   string // required
	Prefix   string // of all keys, without slashes at its ends; may be empty
	Endpoint string // host:port; default: s3.REGION.amazonaws.com
	Insecure bool   // plain HTTP
	// Region is always sent, so that the library does not ask for it. Default: us-east-1.
	Region    string
	PathStyle bool // http://endpoint/bucket/key, else http://bucket.endpoint/key
	Create    bool // create the bucket where it is missing
	Profile   string

	// AccessKey, SecretKey and SessionToken replace the credentials that AWS tools find: AWS_ACCESS_KEY_ID,
	// AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, then the profile in ~/.aws/credentials, then the instance's role.
	AccessKey, SecretKey, SessionToken string

	// NB: AWS_CA_BUNDLE, too, is read from the environment: certificates to trust beside the system's.

	// Attempts bounds the attempts that the library makes for one request, first one included. Default: 3.
	Attempts int
	// Connections bounds the open connections. Default: 128.
	Connections int
	// BaseTimeout and BytesPerSecond make the deadline of a request: BaseTimeout + bytes/BytesPerSecond.
	// Default: 10 s and 5 MB/s.
	BaseTimeout    time.Duration
	BytesPerSecond int64

	Logger *slog.Logger // default: discards
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	o.Region = cmp.Or(o.Region, "us-east-1")
	if o.Endpoint == "" {
		o.Endpoint = "s3." + o.Region + ".amazonaws.com"
	}
	o.Attempts = cmp.Or(o.Attempts, 3)
	o.Connections = cmp.Or(o.Connections, 128)
	o.BaseTimeout = cmp.Or(o.BaseTimeout, 10*time.Second)
	o.BytesPerSecond = cmp.Or(o.BytesPerSecond, 5_000_000)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// ParseURL reads s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1&path-style=true&create=true&profile=name.
// All parameters are optional: the region is AWS_REGION or AWS_DEFAULT_REGION, and path-style is true where an endpoint is named.
func ParseURL(raw string) (Options, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Options{}, fmt.Errorf("object store url: %w", err)
	}
	if u.Scheme != "s3" || u.Host == "" || u.User != nil {
		return Options{}, fmt.Errorf("object store url %q: want s3://bucket/prefix?endpoint=…: %w", u.Redacted(), objstore.ErrInvalid)
	}
	if err := s3utils.CheckValidBucketNameStrict(u.Host); err != nil {
		return Options{}, fmt.Errorf("object store url %q: bucket %q: %w: %w", u.Redacted(), u.Host, err, objstore.ErrInvalid)
	}
	o := Options{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))}
	o.PathStyle = u.Query().Has("endpoint")
	for name, values := range u.Query() {
		if err := o.setParameter(name, values[len(values)-1]); err != nil {
			return Options{}, fmt.Errorf("object store url %q: %s: %w", u.Redacted(), name, err)
		}
	}
	if o.Prefix != "" {
		if err := objstore.CheckKey(o.Prefix); err != nil {
			return Options{}, fmt.Errorf("object store url %q: prefix: %w", u.Redacted(), err)
		}
	}
	return o, nil
}

func (o *Options) setParameter(name, value string) (err error) {
	switch name {
	case "endpoint":
		e, err := url.Parse(value)
		if err != nil || e.Host == "" || (e.Scheme != "http" && e.Scheme != "https") || strings.Trim(e.Path, "/") != "" {
			return fmt.Errorf("%q is not http://host:port or https://host:port: %w", value, objstore.ErrInvalid)
		}
		o.Endpoint, o.Insecure = e.Host, e.Scheme == "http"
	case "region":
		o.Region = value
	case "profile":
		o.Profile = value
	case "path-style":
		o.PathStyle, err = strconv.ParseBool(value)
	case "create":
		o.Create, err = strconv.ParseBool(value)
	default:
		return fmt.Errorf("unknown parameter (known: endpoint, region, path-style, create, profile): %w", objstore.ErrInvalid)
	}
	return err
}

// client returns the library's client and the transport whose idle connections Close ends.
func (o *Options) client() (*minio.Client, *http.Transport, error) {
	transport, err := minio.DefaultTransport(!o.Insecure)
	if err != nil {
		return nil, nil, err
	}
	if err := trustBundle(transport); err != nil {
		return nil, nil, err
	}
	transport.MaxConnsPerHost = o.Connections
	transport.MaxIdleConns = o.Connections
	transport.MaxIdleConnsPerHost = max(1, o.Connections/2)
	transport.ResponseHeaderTimeout = 15 * time.Second
	transport.DialContext = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	lookup := minio.BucketLookupDNS
	if o.PathStyle {
		lookup = minio.BucketLookupPath
	}
	c, err := minio.New(o.Endpoint, &minio.Options{
		Creds: o.credentials(), Secure: !o.Insecure, Transport: transport, Region: o.Region, BucketLookup: lookup,
		TrailingHeaders: true, // the library takes a checksum header only with it
		MaxRetries:      o.Attempts,
	})
	return c, transport, err
}

// trustBundle makes the transport trust the certificates in the file that AWS_CA_BUNDLE names, as AWS tools do, beside the
// system's.
func trustBundle(transport *http.Transport) error {
	path := os.Getenv("AWS_CA_BUNDLE")
	if path == "" || transport.TLSClientConfig == nil {
		return nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("AWS_CA_BUNDLE: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("AWS_CA_BUNDLE: no certificate in %s", path)
	}
	transport.TLSClientConfig.RootCAs = roots
	return nil
}

func (o *Options) credentials() *credentials.Credentials {
	if o.AccessKey != "" {
		return credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken)
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{},
		&credentials.FileAWSCredentials{Profile: o.Profile},
		&credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}},
	})
}
