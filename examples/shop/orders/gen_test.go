package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestGeneratedCodeIsThatOfTheProtocol(t *testing.T) {
	fresh := t.TempDir()
	if output, err := exec.Command("scripts/gen", fresh).CombinedOutput(); err != nil {
		t.Fatalf("scripts/gen: %s\n%s", err, output)
	}
	files, err := filepath.Glob(filepath.Join(fresh, "shop", "v1", "*.go"))
	if err != nil || len(files) != 2 {
		t.Fatalf("generated %v %v", files, err)
	}
	for _, file := range files {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		committed := filepath.Join("internal", "gen", "shop", "v1", filepath.Base(file))
		if got, err := os.ReadFile(committed); err != nil || string(got) != string(want) {
			t.Errorf("%s is not what scripts/gen makes (%v): run it", committed, err)
		}
	}
}
