package oracle

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// trusting returns the global options of a case. Only one address is a proxy that is
// trusted, so that other clients are who they are.
func trusting(proxy string) string {
	return `{
	admin off
	auto_https off
	default_bind 127.0.0.1
	servers {
		protocols h1 h2 h2c
		trusted_proxies static ` + proxy + `
	}
}
`
}

// words are what a Caddyfile of a case may name in capitals.
var words = regexp.MustCompile(`\b(SHARE|PORT2?|PUBLIC|PRIVATE|LANGUAGE|GREETER|AUTH|PHP|ROOT|TLS|CA)\b`)

// render returns the Caddyfile of a run, for Caddy.
func (r *run) render(template string) (string, error) {
	var failed error
	config := words.ReplaceAllStringFunc(template, func(word string) string {
		switch word {
		case "SHARE":
			return r.line
		case "PORT", "PORT2":
			return strconv.Itoa(r.port(word))
		case "ROOT":
			return filepath.Join(root, "site")
		case "TLS":
			return fmt.Sprintf("tls %s %s", filepath.Join(root, "cert.pem"), filepath.Join(root, "key.pem"))
		case "CA":
			return filepath.Join(root, "ca.pem")
		}
		addr, err := r.origins.addr(word)
		if err != nil {
			failed = err
		}
		return addr
	})
	if !strings.HasPrefix(config, "{") {
		config = trusting(trustedProxy) + config
	}
	return config, failed
}

// A merged configuration holds those of many runs.
type merged struct {
	servers      map[string]json.RawMessage
	certificates map[string]json.RawMessage // of files, by their JSON
}

var caddyfileAdapter = caddyconfig.GetAdapter("caddyfile")

func newMerged() *merged {
	return &merged{servers: make(map[string]json.RawMessage), certificates: make(map[string]json.RawMessage)}
}

// add adapts the Caddyfile of a run and adds its servers.
func (m *merged) add(name, caddyfile string) error {
	adapted, _, err := caddyfileAdapter.Adapt([]byte(caddyfile), nil)
	if err != nil {
		return fmt.Errorf("adapting the Caddyfile: %w", err)
	}
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]json.RawMessage `json:"servers"`
			} `json:"http"`
			TLS struct {
				Certificates struct {
					LoadFiles []json.RawMessage `json:"load_files"`
				} `json:"certificates"`
			} `json:"tls"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(adapted, &config); err != nil {
		return fmt.Errorf("decoding the configuration: %w", err)
	}
	for server, definition := range config.Apps.HTTP.Servers {
		m.servers[name+"_"+server] = definition
	}
	for _, file := range config.Apps.TLS.Certificates.LoadFiles {
		m.certificates[string(file)] = file
	}
	return nil
}

// load makes Caddy run what was added, instead of what it ran before.
func (m *merged) load() error {
	type object = map[string]any
	certificates := []json.RawMessage{}
	for _, file := range m.certificates {
		certificates = append(certificates, file)
	}
	log := object{"writer": object{"output": "discard"}}
	if *showLog {
		log = object{"level": "DEBUG"}
	}
	config, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(root, "storage")},
		"logging": object{"logs": object{"default": log}},
		"apps": object{
			"http": object{"servers": m.servers},
			"tls":  object{"certificates": object{"load_files": certificates}},
		},
	})
	if err != nil {
		return fmt.Errorf("encoding the configuration: %w", err)
	}
	if err := caddy.Load(config, true); err != nil {
		return fmt.Errorf("loading the configuration: %w", err)
	}
	return nil
}

// tidy returns a Caddyfile as messages show it.
func tidy(caddyfile string) string {
	lines := strings.Split(strings.TrimSpace(caddyfile), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.TrimSpace(line) == "" })
	return strings.Join(lines, "\n")
}
