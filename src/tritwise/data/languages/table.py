"""The languages that are known: how each writes a comment, and by what names its files go.

The names are those of the paper's table in lower case (arXiv 2401.14196, table 1; `paper.py`), and a few besides:
Swift, whose imports are understood, Markdown and reStructuredText, which code-related English is written in.
"""

from typing import NamedTuple


class Language(NamedTuple):
    """A language: `comment` is what opens and closes a comment of one line, None when there is no comment.

    `extensions` are lower case with their dot and may hold several (`.cmake.in`); `names` are whole file names;
    `interpreters` are programs that a first line `#!` can name, without version numbers.
    """

    comment: tuple[str, str] | None
    extensions: tuple[str, ...]
    names: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()


_SLASHES, _HASH, _DASHES, _PERCENT, _SEMICOLON = ("//", ""), ("#", ""), ("--", ""), ("%", ""), (";", "")
_STARS, _ML, _MARKUP = ("/*", "*/"), ("(*", "*)"), ("<!--", "-->")


def _language(comment: tuple[str, str] | None, extensions: str, names: str = "", interpreters: str = "") -> Language:
    return Language(comment, tuple(extensions.split()), tuple(names.split()), tuple(interpreters.split()))


LANGUAGES = {
    "ada": _language(_DASHES, ".adb .ads .ada"),
    "agda": _language(_DASHES, ".agda"),
    "alloy": _language(_SLASHES, ".als"),
    "antlr": _language(_SLASHES, ".g4"),
    "applescript": _language(_DASHES, ".applescript .scpt", "", "osascript"),
    "assembly": _language(_SEMICOLON, ".asm .s .nasm .nas .a51 .inc"),
    "augeas": _language(_ML, ".aug"),
    "awk": _language(_HASH, ".awk .gawk .mawk .nawk .auk", "", "awk gawk mawk nawk"),
    "batchfile": _language(("REM", ""), ".bat .cmd"),
    "bluespec": _language(_SLASHES, ".bsv"),
    "c": _language(_SLASHES, ".c .h .h.in .cats .idc", "", "tcc"),
    "c#": _language(_SLASHES, ".cs .csx .cs.pp .cake .linq", "", "dotnet-script"),
    "clojure": _language(_SEMICOLON, ".clj .cljs .cljc .cljx .cl2 .hic .boot", "build.boot profile.boot riemann.config",
                         "bb clojure"),
    "cmake": _language(_HASH, ".cmake .cmake.in", "CMakeLists.txt"),
    "coffeescript": _language(_HASH, ".coffee ._coffee .cjsx .iced .cake", "Cakefile", "coffee"),
    "common lisp": _language(_SEMICOLON, ".lisp .lsp .cl .asd .ny .l .sexp", "", "lisp sbcl ccl clisp ecl"),
    "c++": _language(_SLASHES, ".cc .cpp .cxx .c++ .cp .cppm .ixx .hh .hpp .hxx .h++ .inl .ipp .tcc .tpp .txx .ino "
                     ".h .inc .re"),
    "css": _language(_STARS, ".css"),
    "cuda": _language(_SLASHES, ".cu .cuh"),
    "dart": _language(_SLASHES, ".dart", "", "dart"),
    "dockerfile": _language(_HASH, ".dockerfile .containerfile", "Dockerfile Containerfile"),
    "elixir": _language(_HASH, ".ex .exs", "mix.lock", "elixir"),
    "elm": _language(_DASHES, ".elm"),
    "emacs lisp": _language(_SEMICOLON, ".el .emacs .emacs.desktop", ".emacs _emacs .gnus .viper .spacemacs Cask Eask "
                            "Project.ede .abbrev_defs abbrev_defs", "emacs"),
    "erlang": _language(_PERCENT, ".erl .hrl .escript .xrl .yrl .app.src .app .es",
                        "rebar.config rebar.config.lock rebar.lock Emakefile", "escript"),
    "f#": _language(_SLASHES, ".fs .fsi .fsx", "", "fsharpi"),
    "fortran": _language(("!", ""), ".f .f77 .f90 .f95 .f03 .f08 .for .fpp .ftn"),
    "glsl": _language(_SLASHES, ".glsl .vert .frag .geom .tesc .tese .comp .vsh .fsh .gsh .glslf .glslv .vshader "
                      ".fshader .gshader .rchit .rmiss .rgen .frg .vrx .geo .gs .fs .vs .fp .shader"),
    "go": _language(_SLASHES, ".go", "", "gorun"),
    "groovy": _language(_SLASHES, ".groovy .gvy .gradle .grt .gtpl", "Jenkinsfile", "groovy"),
    "haskell": _language(_DASHES, ".hs .hsc .hs-boot", "", "runghc runhaskell runhugs stack"),
    "html": _language(_MARKUP, ".html .htm .xhtml .xht .hta .html.hl .inc"),
    "idris": _language(_DASHES, ".idr"),
    "isabelle": _language(_ML, ".thy"),
    "java": _language(_SLASHES, ".java .jav .jsh"),
    "java server pages": _language(("<%--", "--%>"), ".jsp .jspf .tag"),
    "javascript": _language(_SLASHES, ".js .mjs .cjs .jsx .es6 .es .jsm .jsb .jake .jsfl .jss .njs .sjs .ssjs .xsjs "
                            ".xsjslib .pac ._js .bones .jscad .jspre .gs .frag .javascript", "Jakefile",
                            "node nodejs bun d8 js gjs rhino v8 qjs chakra"),
    "json": _language(None, ".json .jsonl .geojson .topojson .webmanifest .avsc .gltf .har .mcmeta .sarif .tfstate "
                      ".tfstate.backup .webapp .yyp .json-tmlanguage .json.example .4dform .4dproject .yy .ice .tact",
                      ".arcconfig .auto-changelog .c8rc .htmlhintrc .imgbotconfig .nycrc .tern-config .tern-project "
                      ".watchmanconfig .all-contributorsrc .releaserc Package.resolved Pipfile.lock composer.lock "
                      "deno.lock flake.lock mcmod.info"),
    "julia": _language(_HASH, ".jl", "", "julia"),
    "jupyter notebook": _language(None, ".ipynb"),
    "kotlin": _language(_SLASHES, ".kt .kts .ktm", "", "kotlin"),
    "lean": _language(_DASHES, ".lean .hlean"),
    "literate agda": _language(_PERCENT, ".lagda .lagda.tex"),
    "literate coffeescript": _language(_MARKUP, ".litcoffee .coffee.md"),
    "literate haskell": _language(_PERCENT, ".lhs"),
    "lua": _language(_DASHES, ".lua .nse .rockspec .wlua .pd_lua .rbxs .p8", ".luacheckrc", "lua luajit"),
    "makefile": _language(_HASH, ".mk .mak .make .makefile .mkfile .d",
                          "Makefile makefile GNUmakefile BSDmakefile Kbuild Makefile.am Makefile.in Makefile.inc "
                          "Makefile.boot Makefile.frag Makefile.pc Makefile.wat makefile.sco mkfile", "make"),
    "maple": _language(_HASH, ".mpl .maple"),
    "mathematica": _language(_ML, ".wl .wls .wlt .nb .nbp .mathematica .ma .mt .cdf .m", "",
                             "wolframscript wolfram MathematicaScript math MathKernel WolframKernel Mathematica "
                             "WolframNB"),
    "matlab": _language(_PERCENT, ".m .matlab", "", "octave"),
    "ocaml": _language(_ML, ".ml .mli .mll .mly .ml4 .eliom .eliomi", "", "ocaml ocamlrun ocamlscript"),
    "pascal": _language(("{", "}"), ".pas .pascal .dpr .lpr .dfm .pp .inc", "", "instantfpc"),
    "perl": _language(_HASH, ".pl .pm .perl .plx .ph .psgi .t .al",
                      "cpanfile Makefile.PL Rexfile ack .latexmkrc latexmkrc", "perl cperl"),
    "php": _language(_SLASHES, ".php .phtml .php3 .php4 .php5 .phps .phpt .ctp .aw .inc",
                     ".php_cs .php_cs.dist Phakefile", "php"),
    "powershell": _language(_HASH, ".ps1 .psm1 .psd1", "", "pwsh powershell"),
    "prolog": _language(_PERCENT, ".pl .prolog .pro .plt .yap", "", "swipl yap gprolog"),
    "protocol buffer": _language(_SLASHES, ".proto"),
    "python": _language(_HASH, ".py .pyi .pyw .py3 .pyde .pyp .pyt .gyp .gypi .tac .wsgi .xpy .lmi .rpy .spec",
                        "SConstruct SConscript wscript .gclient DEPS",
                        "python pypy uv pypy3 python2 python3"),
    "r": _language(_HASH, ".r .rsx", ".Rprofile .Rhistory expr-dist", "Rscript"),
    "racket": _language(_SEMICOLON, ".rkt .rktd .rktl .scrbl", "", "racket"),
    "rmarkdown": _language(_MARKUP, ".rmd .qmd"),
    "ruby": _language(_HASH, ".rb .rake .gemspec .ru .rbi .rbw .rbx .ruby .podspec .jbuilder .rabl .thor .god .builder "
                      ".eye .mspec .prawn .rbuild .watchr .spec .pluginspec",
                      "Rakefile Gemfile Guardfile Capfile Podfile Vagrantfile Fastfile Brewfile Berksfile Dangerfile "
                      "Appraisals Buildfile buildfile Deliverfile Jarfile Mavenfile Puppetfile Snapfile Steepfile "
                      "Thorfile .irbrc .pryrc .simplecov", "ruby jruby macruby rake rbx"),
    "rust": _language(_SLASHES, ".rs .rs.in", "", "rust-script"),
    "sas": _language(_STARS, ".sas"),
    "scala": _language(_SLASHES, ".scala .sbt .sc .kojo", "", "scala"),
    "scheme": _language(_SEMICOLON, ".scm .ss .sld .sps .sls .sch", "", "scheme guile bigloo chicken csi gosh r6rs"),
    "shell": _language(_HASH, ".sh .bash .zsh .ksh .bats .command .sbatch .slurm .tmux .tool .zsh-theme .sh.in "
                       ".pacscript",
                       ".bashrc .bash_profile .bash_aliases .bash_functions .bash_history .bash_logout .profile .login "
                       ".kshrc .zshrc .zshenv .zprofile .zlogin .zlogout .envrc .flaskenv .xinitrc .xsession "
                       ".tmux.conf bashrc bash_profile bash_aliases bash_logout zshrc zshenv zprofile zlogin zlogout "
                       "kshrc xinitrc xsession tmux.conf PKGBUILD gradlew mvnw 9fs",
                       "sh bash zsh ksh dash ash mksh pdksh rc"),
    "smalltalk": _language(('"', '"'), ".st .cs"),
    "solidity": _language(_SLASHES, ".sol"),
    "sparql": _language(_HASH, ".sparql .rq"),
    "sql": _language(_DASHES, ".sql .ddl .mysql .prc .tab .udf .viw .pls .plsql .pks .pkb .pgsql .inc"),
    "stan": _language(_SLASHES, ".stan"),
    "standard ml": _language(_ML, ".sml .sig .fun .ml"),
    "stata": _language(_SLASHES, ".do .ado .doh .ihlp .mata .matah .sthlp"),
    "systemverilog": _language(_SLASHES, ".sv .svh .vh"),
    "tcl": _language(_HASH, ".tcl .tcl.in .tm .adp .sdc .xdc", "owh starfield", "tclsh wish expect"),
    "tcsh": _language(_HASH, ".csh .tcsh .sh", ".cshrc .tcshrc cshrc", "csh tcsh"),
    "tex": _language(_PERCENT, ".tex .sty .cls .ltx .dtx .ins .bbx .cbx .lbx .mkii .mkiv .mkvi"),
    "thrift": _language(_SLASHES, ".thrift"),
    "typescript": _language(_SLASHES, ".ts .tsx .mts .cts", "", "ts-node tsx deno"),
    "verilog": _language(_SLASHES, ".v .veo"),
    "vhdl": _language(_DASHES, ".vhd .vhdl .vhf .vhi .vho .vhs .vht .vhw"),
    "visual basic": _language(("'", ""), ".vb .vbs .vbhtml .bas .cls .frm .vba"),
    "xslt": _language(_MARKUP, ".xsl .xslt"),
    "yacc": _language(_STARS, ".y .yacc .yy"),
    "yaml": _language(_HASH, ".yml .yaml .sublime-syntax .syntax .yaml-tmlanguage .yaml.sed .yml.mysql .mir .reek "
                      ".rviz",
                      ".clang-format .clang-tidy .clangd .gemrc CITATION.cff glide.lock pixi.lock yarn.lock"),
    "zig": _language(_SLASHES, ".zig .zig.zon", "", "zig"),
    # Not of the paper's table.
    "markdown": _language(_MARKUP, ".md .markdown .mdown .mdwn .mkd .mkdn .ronn .livemd", "contents.lr"),
    "restructuredtext": _language(("..", ""), ".rst .rest .rst.txt .rest.txt"),
    "swift": _language(_SLASHES, ".swift", "", "swift"),
}
