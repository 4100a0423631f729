"""Ruby: what is required, and constants that the names of files tell the owner of."""

from repository_graph import facts_of, graph

from tritwise.data.imports import extract


def test_every_form_of_require_with_a_literal_name_is_found():
    facts = extract(
        "ruby",
        "lib/a/b.rb",
        b"""
require "x/one"; require 'two'
require_relative "../three"
load "four.rb"
autoload :Five, "x/five"
Object.autoload(:Six, 'x/six')
require File.expand_path("../seven", __FILE__)
require File.join(__dir__, "eight", "more")
require File.dirname(__FILE__) + '/nine'
require "#{__dir__}/ten"
require File.expand_path('eleven', File.dirname(__FILE__))
# require "no1"
=begin
require "no2"
=end
text = "require 'no3'"
doc = <<~TEXT
  require "no4"
TEXT
require name
require "#{name}/no5"
other.require "no6"
begin; require 'twelve'; rescue LoadError; end
""",
    )
    assert {name for kind, name in facts.imports if kind == "require"} == {
        "x/one",
        "two",
        "four.rb",
        "x/five",
        "x/six",
        "twelve",
    }
    assert {name for kind, name in facts.imports if kind == "relative"} == {
        "../three",
        "seven",
        "eight/more",
        "nine",
        "ten",
        "eleven",
    }


def test_required_names_are_found_below_lib_and_in_tests_below_their_root():
    files = {
        "lib/gem.rb": "require 'gem/a'\nrequire_relative 'gem/b'\nrequire 'json'\nrequire 'helper'\n",
        "lib/gem/a.rb": "",
        "lib/gem/b.rb": "require_relative '../gem'\n",
        "test/helper.rb": "require 'gem'\n",
        "test/unit/t_test.rb": "require 'helper'\nrequire 'test/helper'\n",
        "other/lib/gem/a.rb": "",
        "other/lib/gem/c.rb": "require 'gem/a'\n",
        "Rakefile.rb": "load 'tasks/x.rb'\n",
        "tasks/x.rb": "",
    }
    assert graph(files) == {
        "lib/gem.rb": ["lib/gem/a.rb", "lib/gem/b.rb"],
        "lib/gem/b.rb": ["lib/gem.rb"],
        "test/helper.rb": ["lib/gem.rb"],
        "test/unit/t_test.rb": ["test/helper.rb"],
        "other/lib/gem/c.rb": ["other/lib/gem/a.rb"],
        "Rakefile.rb": ["tasks/x.rb"],
    }


def test_definitions_and_uses_have_their_nesting():
    facts = extract(
        "ruby",
        "a.rb",
        b"""
module A::B
  class C < D::E
    include F
    X = 1
    class << self
      def m; ::G::H.new(I) rescue J; end
    end
  end
  class K; end
end
module ::Top; L; end
M = Struct.new(:a)
""",
    )
    assert facts.defines == ("A::B", "A::B::C", "A::B::C::X", "A::B::K", "M", "Top")
    assert facts.uses == ("A::B::C|::G::H", "A::B::C|D::E", "A::B::C|F", "A::B::C|I", "A::B::C|J", "Top|L", "|Struct")


def test_a_constant_leads_to_the_file_that_defines_it_and_is_named_after_it():
    files = {
        "app/models/user.rb": "class User < ApplicationRecord\n  include Concerned\n  has HTTPClient::Pool\nend\n",
        "app/models/application_record.rb": "class ApplicationRecord; end\n",
        "app/models/concerns/concerned.rb": "module Concerned; end\n",
        "lib/http_client/pool.rb": "module HTTPClient; class Pool; SIZE = 1; end; end\n",
        "app/controllers/users_controller.rb": "class UsersController; User.find(HTTPClient::Pool::SIZE); end\n",
        "lib/tasks.rb": "class Misnamed; end\n",
        "lib/other.rb": "Misnamed.new; String.new; Unknown\n",
    }
    assert graph(files) == {
        "app/models/user.rb": [
            "app/models/application_record.rb",
            "app/models/concerns/concerned.rb",
            "lib/http_client/pool.rb",
        ],
        "app/controllers/users_controller.rb": ["app/models/user.rb", "lib/http_client/pool.rb"],
    }


def test_the_innermost_constant_is_meant_and_ambiguous_ones_lead_nowhere():
    files = {
        "lib/a.rb": "module A; end\n",
        "lib/a/thing.rb": "module A; class Thing; end; end\n",
        "lib/thing.rb": "class Thing; end\n",
        "lib/a/user.rb": "module A\n  class User\n    Thing\n    ::Thing\n  end\nend\n",
        "lib/b.rb": "A::Thing\n",
        "one/lib/twin.rb": "class Twin; end\n",
        "two/lib/twin.rb": "class Twin; end\n",
        "lib/c.rb": "Twin.new\n",
    }
    assert graph(files) == {"lib/a/user.rb": ["lib/a/thing.rb", "lib/thing.rb"], "lib/b.rb": ["lib/a/thing.rb"]}


def test_files_that_require_each_other_and_wrong_syntax_are_read():
    files = {
        "a.rb": "require_relative 'b'\nrequire_relative 'a'\n",
        "b.rb": "require './a'\nrequire_relative 'a'\nclass (\n",
    }
    assert graph(files) == {"a.rb": ["b.rb"], "b.rb": ["a.rb"]}
    assert facts_of(files)["b.rb"].wrong_bytes > 0
