# Prints which file requires which while a library loads, by Ruby's own search of its load path.
#
#     ruby main.rb FOLDER LIB...
#
# Every .rb file below each LIB folder is required once. A gem that is not here is passed over, and what it would define
# is an empty class, so that loading goes on. Lines are "FROM TO" of require, require_relative and autoload calls,
# separated by a tab, for files below FOLDER.

ROOT = File.realpath(ARGV.shift) + "/"
LINES = {}

def self.note(place, target)
  from = place&.absolute_path && File.realpath(place.absolute_path)
  return unless from && target && File.file?(target)
  to = File.realpath(target)
  LINES["#{from.delete_prefix(ROOT)}\t#{to.delete_prefix(ROOT)}"] = true if from.start_with?(ROOT) && to.start_with?(ROOT)
rescue SystemCallError
  nil
end
NOTE = method(:note)

def self.search(name)
  found = $LOAD_PATH.resolve_feature_path(name.to_s)
  found && found[1].is_a?(String) ? found[1] : nil
rescue LoadError
  nil
end
SEARCH = method(:search)

class Module
  def const_missing(name)
    const_set(name, Class.new(StandardError) do
      def self.method_missing(*) = self
      def self.respond_to_missing?(*) = true
      def method_missing(*) = self
      def respond_to_missing?(*) = true
    end)
  end
end

module Kernel
  alias_method :plain_require, :require

  def require(name)
    NOTE.call(caller_locations(1, 1)&.first, SEARCH.call(name))
    plain_require(name)
  rescue LoadError
    false
  end

  def require_relative(name)
    place = caller_locations(1, 1).first
    target = File.expand_path(name.to_s, File.dirname(place.absolute_path))
    NOTE.call(place, File.file?(target) ? target : "#{target}.rb")
    plain_require(target)
  end
end

class Module
  alias_method :plain_autoload, :autoload

  def autoload(name, path)
    NOTE.call(caller_locations(1, 1)&.first, SEARCH.call(path))
    plain_autoload(name, path)
  end
end

libraries = ARGV.map { |each| File.realpath(each, ROOT) }
$LOAD_PATH.unshift(*libraries)
$stdout = $stderr.dup
libraries.each do |library|
  Dir.glob("#{library}/**/*.rb").sort.each do |file|
    plain_require(file)
  rescue Exception => e # a file that asks for more of a gem than an empty class
    warn "#{file}: #{e.class}: #{e.message.lines.first}"
  end
end
STDOUT.puts LINES.keys.sort
STDOUT.flush
exit!(0)
