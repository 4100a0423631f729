// Prints which file of Go modules uses what another file defines, by the type checker of Go's standard library.
//
//	go run main.go FOLDER
//
// A line is "file PATH", for each file that was checked, or "edge FROM TO KIND", where KIND is "package" for what a
// package declares (functions, types, variables, constants) and "member" for methods and fields. Packages of other
// modules are not there: what depends on their types stays unknown, and the checker goes on.
package main

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

type directory struct {
	folder                string // below the root, with slashes
	files, tests, outside []*ast.File
	plain, augmented      *types.Package
	busy                  bool
}

type loader struct {
	root     string
	set      *token.FileSet
	standard types.Importer
	byPath   map[string]*directory // by import path
	edges    map[string]bool
	missing  map[string]*types.Package
	outside  *directory // whose external tests are being checked
}

func (l *loader) Import(name string) (*types.Package, error) {
	if d := l.byPath[name]; d != nil {
		if d == l.outside {
			return d.augmented, nil
		}
		if d.plain == nil && !d.busy {
			d.busy = true
			d.plain = l.check(name, d.files, true)
			d.busy = false
		}
		if d.plain != nil {
			return d.plain, nil
		}
	} else if first := strings.SplitN(name, "/", 2)[0]; !strings.Contains(first, ".") {
		if found, err := l.standard.Import(name); err == nil {
			return found, nil
		}
	}
	if l.missing[name] == nil {
		l.missing[name] = types.NewPackage(name, path.Base(name))
		l.missing[name].MarkComplete()
	}
	return l.missing[name], nil
}

func (l *loader) relative(position token.Pos) string {
	name := l.set.Position(position).Filename
	found, err := filepath.Rel(l.root, name)
	if err != nil || strings.HasPrefix(found, "..") {
		return ""
	}
	return filepath.ToSlash(found)
}

func (l *loader) check(name string, files []*ast.File, record bool) *types.Package {
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	settings := types.Config{Importer: l, Error: func(error) {}, FakeImportC: true}
	result, _ := settings.Check(name, l.set, files, info)
	for use, object := range info.Uses {
		if !record || !object.Pos().IsValid() || object.Pkg() == nil {
			continue
		}
		from, to := l.relative(use.Pos()), l.relative(object.Pos())
		if _, isImport := object.(*types.PkgName); from == "" || to == "" || from == to || isImport {
			continue
		}
		kind := "member"
		if object.Parent() == object.Pkg().Scope() {
			kind = "package"
		}
		l.edges["edge\t"+from+"\t"+to+"\t"+kind] = true
	}
	return result
}

func main() {
	root, err := filepath.Abs(os.Args[1])
	if err != nil {
		panic(err)
	}
	build.Default.CgoEnabled = false
	set := token.NewFileSet()
	l := &loader{root: root, set: set, standard: importer.ForCompiler(set, "source", nil),
		byPath: map[string]*directory{}, edges: map[string]bool{}, missing: map[string]*types.Package{}}
	modules := map[string]string{} // folder: module path
	var folders []string
	filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		base := entry.Name()
		if entry.IsDir() {
			if name != root && (base == "vendor" || base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			folders = append(folders, name)
		} else if base == "go.mod" {
			text, _ := os.ReadFile(name)
			for _, line := range strings.Split(string(text), "\n") {
				if words := strings.Fields(line); len(words) == 2 && words[0] == "module" {
					modules[filepath.Dir(name)] = strings.Trim(words[1], "\"")
				}
			}
		}
		return nil
	})
	for _, folder := range folders {
		module, below := "", folder
		for ; strings.HasPrefix(below, root); below = filepath.Dir(below) {
			if modules[below] != "" {
				module = modules[below]
				break
			}
		}
		if module == "" {
			continue
		}
		rest, _ := filepath.Rel(below, folder)
		d := &directory{folder: folder}
		names, _ := filepath.Glob(filepath.Join(folder, "*.go"))
		sort.Strings(names)
		for _, name := range names {
			if fits, err := build.Default.MatchFile(folder, filepath.Base(name)); err != nil || !fits {
				continue
			}
			file, _ := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
			if file == nil {
				continue
			}
			fmt.Println("file\t" + l.relative(file.Pos()))
			switch {
			case !strings.HasSuffix(name, "_test.go"):
				d.files = append(d.files, file)
			case strings.HasSuffix(file.Name.Name, "_test"):
				d.outside = append(d.outside, file)
			default:
				d.tests = append(d.tests, file)
			}
		}
		if len(names) > 0 {
			l.byPath[path.Join(module, filepath.ToSlash(rest))] = d
		}
	}
	var names []string
	for name := range l.byPath {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		d := l.byPath[name]
		plain, _ := l.Import(name)
		d.augmented = plain
		if len(d.tests) > 0 {
			d.augmented = l.check(name, append(append([]*ast.File{}, d.files...), d.tests...), true)
		}
		if len(d.outside) > 0 {
			l.outside = d
			l.check(name+"_test", d.outside, true)
			l.outside = nil
		}
	}
	var lines []string
	for line := range l.edges {
		lines = append(lines, line)
	}
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
