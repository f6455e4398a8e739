# frozen_string_literal: true

# Loads a Vagrantfile without Vagrant and prints, as JSON, what it asks for: one object a machine.
# usage: ruby vagrant_stub.rb VAGRANTFILE PROVIDER

require 'json'

# Whatever is assigned is kept; whatever is read and was never assigned is a hash (provider.vmx['memsize'] = ...).
class Assigned
  attr_reader :values

  def initialize
    @values = {}
  end

  def method_missing(name, *arguments)
    return @values[name.to_s.chomp('=')] = arguments.first if name.end_with?('=')

    @values[name.to_s] ||= {}
  end

  def respond_to_missing?(*)
    true
  end
end

# config.vm, for one provider.
class Machine < Assigned
  attr_reader :folders, :networks, :provisioners, :defined, :settings

  def initialize(provider)
    super()
    @provider = provider
    @folders = {}
    @networks = []
    @provisioners = []
    @defined = {}
    @settings = Assigned.new
  end

  def provider(name)
    override = Struct.new(:vm).new(self)
    yield @settings, override if name == @provider
  end

  def synced_folder(host, guest, **options)
    @folders[guest] = options.merge(host: host)
  end

  def network(kind, **options)
    @networks << options.merge(kind: kind)
  end

  def provision(name, **options)
    @provisioners << options.merge(name: name)
  end

  def define(name, **options, &block)
    @defined[name] = [options, block]
  end

  def to_h
    values.merge(folders: folders, networks: networks, provisioners: provisioners, provider: settings.values)
  end
end

module Vagrant
  def self.configure(_version)
    load_one = lambda do |name|
      config = Struct.new(:vm).new(Machine.new(ARGV.fetch(1)))
      yield config
      return config.vm if name.nil?

      options, block = config.vm.defined.fetch(name)
      block.call(config)
      config.vm.to_h.merge(options)
    end

    whole = load_one.call(nil)
    names = whole.defined.keys
    machines = names.empty? ? { 'default' => whole.to_h } : names.to_h { |name| [name, load_one.call(name)] }
    puts JSON.generate(machines)
  end
end

load ARGV.fetch(0)
