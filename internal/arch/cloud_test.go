package arch

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Package cloud wires the rooms together and decides nothing: no type but Cloud holds a Cloud, so that each adapter
// says what it needs and can be tested alone, and nothing there asks who may.
func TestCloudOnlyWires(t *testing.T) {
	var types, calls int
	for _, p := range load(t) {
		if p.PkgPath != "giggle/cloud" {
			continue
		}
		for _, f := range p.Syntax {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					types++
					if n.Name.Name != "Cloud" && holdsCloud(n.Type) {
						t.Errorf("%s: %s holds a *Cloud: give it what it needs", at(p.Fset, n), n.Name.Name)
					}
				case *ast.CallExpr:
					calls++
					if s, ok := n.Fun.(*ast.SelectorExpr); ok &&
						(s.Sel.Name == "Authorize" || s.Sel.Name == "Allowed") {
						t.Errorf("%s: %s decides who may: that belongs to the room that acts", at(p.Fset, n),
							s.Sel.Name)
					}
				}
				return true
			})
		}
	}
	if types < 2 || calls < 100 {
		t.Fatalf("%d types and %d calls were found in package cloud: the rule would hold for nothing", types, calls)
	}
}

func holdsCloud(e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && id.Name == "Cloud" {
			found = true
		}
		return !found
	})
	return found
}

// The servers of APIs are made by New from a Config and say who may call them in a literal of rules.
func TestAPIsAreShapedAlike(t *testing.T) {
	n := 0
	for _, p := range load(t) {
		name, ok := strings.CutPrefix(p.PkgPath, "giggle/api/")
		if !ok || strings.Contains(name, "/") {
			continue
		}
		has := make(map[string]bool)
		for _, f := range p.Syntax {
			for _, d := range f.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil {
						has[d.Name.Name] = true
					}
				case *ast.GenDecl:
					for _, s := range d.Specs {
						switch s := s.(type) {
						case *ast.TypeSpec:
							has[s.Name.Name] = true
						case *ast.ValueSpec:
							has[s.Names[0].Name] = true
						}
					}
				}
			}
		}
		if !has["Rules"] || name == "guard" {
			continue
		}
		n++
		for _, want := range []string{"Config", "Server", "New"} {
			if !has[want] {
				t.Errorf("%s has rules and no %s", p.PkgPath, want)
			}
		}
	}
	if n < 10 {
		t.Fatalf("only %d APIs were found: the rule would hold for nothing", n)
	}
}

func at(fset *token.FileSet, n ast.Node) string { return fset.Position(n.Pos()).String() }
