"""Swift: small packages with the dependencies written down by hand."""

import pytest
from repository_graph import extract_in_any_order

from tritwise.data.imports import dependencies, extract


def edges(files: dict[str, str]) -> dict[str, set[str]]:
    return dependencies({path: extract_in_any_order("swift", path, text.encode()) for path, text in files.items()})


PACKAGE = """// swift-tools-version:5.9
// .target(name: "Never")
let package = Package(name: "P", targets: [
    .target(name: "Core", dependencies: [.product(name: "Log", package: "log")], path: "Source"),
    .executableTarget(name: "tool", dependencies: ["Core"]),
    .testTarget(name: "CoreTests", dependencies: [.target(name: "Core")]),
])
"""


def test_files_of_one_target_see_each_other_and_those_of_another_after_an_import():
    found = edges({
        "Package.swift": PACKAGE,
        "Source/Net/Client.swift": "public class Client: Base { let url: Address = makeAddress() }",
        "Source/Base.swift": "open class Base {}",
        "Source/Address.swift": "struct Address {}\nfunc makeAddress() -> Address { Address() }",
        "Sources/tool/main.swift": "import Core\nlet client = Client()\nlet other: Address? = nil\nhelp()",
        "Sources/tool/help.swift": "func help() { print(\"Client\") } // Base",
        "Sources/tool/Address.swift": "struct Address {}",
        "Tests/CoreTests/ClientTests.swift": "@testable import Core\nclass ClientTests { let c = Client() }",
        "Tests/CoreTests/Blind.swift": "class Blind { let c = Client() }",
    })
    assert found == {
        "Package.swift": set(),
        "Source/Net/Client.swift": {"Source/Base.swift", "Source/Address.swift"},
        "Source/Base.swift": set(), "Source/Address.swift": set(),
        "Sources/tool/main.swift": {"Source/Net/Client.swift", "Sources/tool/Address.swift", "Sources/tool/help.swift"},
        "Sources/tool/help.swift": set(), "Sources/tool/Address.swift": set(),
        "Tests/CoreTests/ClientTests.swift": {"Source/Net/Client.swift"}, "Tests/CoreTests/Blind.swift": set()}


def test_without_a_package_the_folder_below_sources_or_the_topmost_one_is_a_module():
    found = edges({"Sources/A/X.swift": "let y: Y", "Sources/A/deep/Y.swift": "class Y {}", "Sources/B/Y.swift":
                   "class Y {}", "App/Views/V.swift": "let m: Model", "App/Models/M.swift": "struct Model {}",
                   "Other/M.swift": "struct Model {}"})
    assert found["Sources/A/X.swift"] == {"Sources/A/deep/Y.swift"}
    assert found["App/Views/V.swift"] == {"App/Models/M.swift"}


@pytest.mark.parametrize("body", [
    "let x: Other", "class X: Other {}", "struct X { var x: [Other]? }", "extension Other {}", "func f(_ x: Other) {}",
    "func f() -> Other.Inner { fatalError() }", "let x = Other()", "let x = Other.shared", "enum X { case a(Other) }",
    "func f<T: Other>(_ x: T) {}", "struct X<T> where T: Other {}", "let x = y as? Other", "let x = [Other]()",
    "typealias X = Other", "protocol X { associatedtype A: Other }", "@Other struct X {}",
    "struct X { @Other var x: Int }",
    "let x = \\Other.name", "func f() { if x is Other {} }", "let x: any Other", "let x = Box<Other>()",
    "let x = \"\\(Other.name)\"",
])
def test_mentions_count_wherever_a_type_can_stand(body):
    assert edges({"M/X.swift": f"{body}\n", "M/Other.swift": "class Other {}\n"})["M/X.swift"] == {"M/Other.swift"}


@pytest.mark.parametrize("body", [
    "// Other", "/* Other /* nested */ Other */", 'let x = "Other"', 'let x = """\n  Other\n"""', "let x = y.Other",
    "struct X<Other> { let x: Other }", "struct X { class Other {}\n let x: Other }", "let other = 1", "import Other",
])
def test_names_of_other_things_are_no_mentions(body):
    assert edges({"M/X.swift": f"{body}\n", "M/Other.swift": "class Other {}\n"})["M/X.swift"] == set()


def test_what_extensions_add_is_found_by_name_and_by_the_type_where_a_member_has_the_name_too():
    files = {"M/Url+.swift": "extension URL {\n  func clean() -> URL { self }\n  func load() {}\n}\n"
                             "extension Int { var doubled: Int { 2 * self } }\n",
             "M/Box.swift": "struct Box {\n  func load() {}\n}\n",
             "M/A.swift": "func a(x: Box) { x.y.clean() }\n",
             "M/B.swift": "func b(x: Box) { x.load() }\n",
             "M/C.swift": "func c(x: URL) { x.load() }\n",
             "M/D.swift": "let d = 1.doubled\n"}
    found = edges(files)
    assert found["M/A.swift"] == {"M/Box.swift", "M/Url+.swift"}
    assert found["M/B.swift"] == {"M/Box.swift"}
    assert found["M/C.swift"] == found["M/D.swift"] == {"M/Url+.swift"}


def test_a_type_nested_by_an_extension_is_found_in_another_file():
    found = edges({"M/Request.swift": "class Request {}\n",
                   "M/Request+State.swift": "extension Request {\n  enum State { case on }\n}\n",
                   "M/User.swift": "let s: Request.State = .on\n"})
    assert found["M/Request+State.swift"] == {"M/Request.swift"}
    assert found["M/User.swift"] == {"M/Request.swift", "M/Request+State.swift"}


def test_a_local_name_hides_a_global_value_but_not_a_function_that_is_called():
    files = {"M/globals.swift": "let size = 1\nfunc make() -> Int { 1 }\n",
             "M/A.swift": "func a(size: Int) -> Int { size }\n", "M/B.swift": "func b(make: Int) -> Int { make() }\n",
             "M/C.swift": "func c() -> Int { size }\n"}
    found = edges(files)
    assert found["M/A.swift"] == set()
    assert found["M/B.swift"] == found["M/C.swift"] == {"M/globals.swift"}


def test_wrong_syntax_is_counted_and_what_can_be_read_is_used():
    facts = extract("swift", "M/X.swift", b"import A\nclass X {\n  func f( }\n}\n) class {")
    assert facts.wrong_bytes > 0
    assert facts.imports == (("A",),)
    for content in (b"", b"\xef\xbb\xbf", "é \0 日本".encode()):
        assert dependencies({"X.swift": extract("swift", "X.swift", content)}) == {"X.swift": set()}
