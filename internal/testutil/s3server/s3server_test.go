package s3server

import (
	"net/http"
	"strings"
	"testing"
)

func TestLaunchRunsBothKinds(t *testing.T) {
	for _, kind := range []string{"minio", "versitygw"} {
		t.Run(kind, func(t *testing.T) {
			s := Start(t, kind)
			if !strings.HasPrefix(s.URL, "s3://varve/?endpoint=http%3A%2F%2F127.0.0.1%3A") {
				t.Errorf("URL = %s", s.URL)
			}
			s.Stop()
			if resp, err := http.Get(s.Endpoint); err == nil {
				resp.Body.Close()
				t.Errorf("after Stop: %s", resp.Status)
			}
			s.Stop() // again
		})
	}
}

func TestMissingBinaryNamesTheScript(t *testing.T) {
	t.Setenv("VARVE_TOOLS", t.TempDir())
	_, err := Launch(t.Context(), "minio", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "internal/testutil/s3server/install.sh") {
		t.Fatalf("err = %v", err)
	}
}
