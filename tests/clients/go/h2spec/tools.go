//go:build tools

// The program that tests/tools/install-h2spec builds.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
