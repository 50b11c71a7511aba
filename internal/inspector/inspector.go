// Package inspector is the page of the inspector: embedded files that need
// nothing from elsewhere, and the header that makes a browser keep to that. It
// knows no Caddy, and nothing of topics.
//
// The page takes two things from its server, by relative URLs: its own files,
// and the event stream "topics", which is not served here.
package inspector

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

//go:embed page
var embedded embed.FS

// A Page serves the files of the inspector. What stands before the last slash
// of a request's path does not matter, for the page is wherever its handler is.
type Page struct {
	// Connect are what the page may connect to beside its own origin, as
	// sources of a Content-Security-Policy (CheckSource).
	Connect []string
}

// ServeHTTP answers a GET or a HEAD.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.Guard(w.Header())
	_, name := path.Split(r.URL.Path)
	if name == "" {
		name = "index.html"
	}
	content, err := fs.ReadFile(embedded, "page/"+name)
	if err != nil {
		http.Error(w, fmt.Sprintf("The inspector has no %s. Its page is the directory, with a slash at the end.", name), http.StatusNotFound)
		return
	}
	// The files change with the binary and carry no date.
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(string(content)))
}

// Guard sets the header of everything that the inspector answers: the page runs
// no script but its own, connects to nothing that was not allowed, is in no
// other page's frame, and is kept by nobody.
func (p *Page) Guard(header http.Header) {
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		strings.Join(append([]string{"connect-src 'self'"}, p.Connect...), " ")+
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
}

// sourceHost is a host of a Content-Security-Policy, which has no way to write
// an IPv6 address, and takes a wildcard for the first label.
var sourceHost = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckSource checks an origin that the page shall be allowed to connect to:
// scheme, host and port, or "*" for all.
func CheckSource(source string) error {
	if source == "*" {
		return nil
	}
	u, err := url.Parse(source)
	if err != nil || !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" ||
		u.User != nil || u.Path != "" || strings.ContainsAny(source, "?#") {
		return fmt.Errorf("%q is neither an origin such as https://example.com nor *", source)
	}
	if !sourceHost.MatchString(u.Hostname()) {
		return fmt.Errorf("%q has a host that browsers do not take here; an IPv6 address needs a name", source)
	}
	if u.Port() == "" && strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("%q has an empty port", source)
	}
	return nil
}
