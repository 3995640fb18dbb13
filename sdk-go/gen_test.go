package synego_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestGeneratedCodeIsThatOfTheProtocol(t *testing.T) {
	if _, err := os.Stat("../proto"); err != nil {
		t.Skip("this copy of the module is not in the checkout of the project, where the protocol is")
	}
	fresh := t.TempDir()
	if output, err := exec.Command("scripts/gen", fresh).CombinedOutput(); err != nil {
		t.Fatalf("scripts/gen: %s\n%s", err, output)
	}
	made, err := filepath.Glob(filepath.Join(fresh, "synego", "v1", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	committed, err := filepath.Glob("internal/gen/synego/v1/*.go")
	if err != nil || len(made) == 0 || len(committed) != len(made) {
		t.Fatalf("%d files made, %d committed, error %v", len(made), len(committed), err)
	}
	for _, file := range made {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("internal", "gen", "synego", "v1", filepath.Base(file))
		if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what scripts/gen makes (%v): run it", path, err)
		}
	}
}
