// Package natsserver builds the NATS server that the module's own tests have.
package natsserver

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds the server into a directory. root is that of the module.
func Build(root, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "nats-server")
	build := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the NATS server: %w\n%s", err, out)
	}
	return binary, nil
}
