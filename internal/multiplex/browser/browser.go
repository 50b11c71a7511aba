// Package browser is the module that pages load: an EventSource whose instances share one
// connection.
package browser

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

//go:embed client.js client.d.ts
var embedded embed.FS

// contentTypes are those of the files.
var contentTypes = map[string]string{
	"client.js":   "text/javascript; charset=utf-8",
	"client.d.ts": "text/plain; charset=utf-8",
}

// Has reports whether there is a file of this name.
func Has(name string) bool { return contentTypes[name] != "" }

// Files are the files of one handler, by name.
type Files map[string]file

type file struct{ content, etag string }

// maxStreams is the line of client.js that says how many streams a connection may have.
const maxStreams = "const most = %d;"

// New returns the files for connections that may have so many streams.
func New(most int) Files {
	files := make(Files)
	for name := range contentTypes {
		raw, err := embedded.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		content := string(raw)
		if name == "client.js" {
			content = strings.Replace(withoutComments(content), fmt.Sprintf(maxStreams, 32), fmt.Sprintf(maxStreams, most), 1)
		}
		sum := sha256.Sum256([]byte(content))
		files[name] = file{content, `"` + hex.EncodeToString(sum[:8]) + `"`}
	}
	return files
}

// withoutComments returns a script without the lines that are comments: no page waits for
// these.
func withoutComments(script string) string {
	var b strings.Builder
	for line := range strings.Lines(script) {
		if !strings.HasPrefix(strings.TrimLeft(line, " "), "//") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// Serve answers a GET or a HEAD for a file.
func (f Files) Serve(w http.ResponseWriter, r *http.Request, name string) {
	header := w.Header()
	header.Set("Content-Type", contentTypes[name])
	header.Set("X-Content-Type-Options", "nosniff")
	// The files change with the binary and carry no date: a page asks each time.
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f[name].etag)
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(f[name].content))
}
