// Which source file of an assembly mentions which type of it, from its intermediate code and mcs's symbols (.mdb).
//   mcs -r:Mono.Cecil.dll -r:Mono.CompilerServices.SymbolWriter.dll References.cs && mono References.exe ASSEMBLY
// Lines: "type <tab> full name <tab> file" and "uses <tab> file or full name <tab> file or full name".
using System;
using System.Collections.Generic;
using System.Linq;
using Mono.Cecil;
using Mono.CompilerServices.SymbolWriter;

static class References {
    static ModuleDefinition module;
    static readonly Dictionary<int, string> files = new Dictionary<int, string>();
    static readonly HashSet<string> lines = new HashSet<string>();

    static TypeReference Outermost(TypeReference type) {
        while (type.DeclaringType != null) type = type.DeclaringType;
        return type;
    }

    static void Use(string from, TypeReference type) {
        if (type == null || type is GenericParameter) return;
        var generic = type as GenericInstanceType;
        if (generic != null) foreach (var argument in generic.GenericArguments) Use(from, argument);
        var specification = type as TypeSpecification;
        if (specification != null) { Use(from, specification.ElementType); return; }
        var outer = Outermost(type);
        if (outer is TypeDefinition && outer.Module == module) lines.Add("uses\t" + from + "\t" + outer.FullName);
    }

    static void UseArguments(string from, TypeReference type) {
        foreach (var argument in ((GenericInstanceType)type).GenericArguments) Use(from, argument);
    }

    static MethodDefinition Definition(MethodReference called) {
        var element = called.GetElementMethod();
        var outer = Outermost(element.DeclaringType.GetElementType());
        return outer is TypeDefinition && outer.Module == module ? element.Resolve() : null;
    }

    static void Use(string from, ICustomAttributeProvider provider) {
        foreach (var attribute in provider.CustomAttributes) {
            Use(from, attribute.AttributeType);
            foreach (var argument in attribute.ConstructorArguments) Use(from, argument.Value as TypeReference);
        }
    }

    static void Use(string from, IGenericParameterProvider provider) {
        foreach (var parameter in provider.GenericParameters)
            foreach (var constraint in parameter.Constraints) Use(from, constraint);
    }

    static void Method(string type, MethodDefinition method) {
        string from;
        if (!files.TryGetValue(method.MetadataToken.ToInt32(), out from)) from = type;
        Use(from, (ICustomAttributeProvider)method);
        Use(from, (IGenericParameterProvider)method);
        Use(from, method.ReturnType);
        foreach (var parameter in method.Parameters) Use(from, parameter.ParameterType);
        foreach (var other in method.Overrides) Use(from, other.DeclaringType);
        if (!method.HasBody) return;
        foreach (var variable in method.Body.Variables) Use(from, variable.VariableType);
        foreach (var handler in method.Body.ExceptionHandlers) Use(from, handler.CatchType);
        foreach (var instruction in method.Body.Instructions) {
            var member = instruction.Operand as MemberReference;
            if (member == null) continue;
            var asType = member as TypeReference;
            if (asType != null) { Use(from, asType); continue; }
            // A method of a class that lies in several files means the one that holds it.
            var called = member as MethodReference;
            var definition = called == null ? null : Definition(called);
            string file;
            if (definition != null && files.TryGetValue(definition.MetadataToken.ToInt32(), out file))
                lines.Add("uses\t" + from + "\t" + file);
            else
                Use(from, member.DeclaringType);
            if (member.DeclaringType is GenericInstanceType) UseArguments(from, member.DeclaringType);
            var generic = member as GenericInstanceMethod;
            if (generic != null) foreach (var argument in generic.GenericArguments) Use(from, argument);
        }
    }

    static void Type(string outer, TypeDefinition type) {
        Use(outer, (ICustomAttributeProvider)type);
        Use(outer, (IGenericParameterProvider)type);
        Use(outer, type.BaseType);
        foreach (var one in type.Interfaces) Use(outer, one.InterfaceType);
        foreach (var field in type.Fields) { Use(outer, field.FieldType); Use(outer, (ICustomAttributeProvider)field); }
        foreach (var property in type.Properties) { Use(outer, property.PropertyType); Use(outer, property); }
        foreach (var one in type.Events) Use(outer, one.EventType);
        foreach (var method in type.Methods) {
            string file;
            if (files.TryGetValue(method.MetadataToken.ToInt32(), out file)) lines.Add("type\t" + outer + "\t" + file);
            Method(outer, method);
        }
        foreach (var nested in type.NestedTypes) Type(outer, nested);
    }

    static void Main(string[] arguments) {
        module = ModuleDefinition.ReadModule(arguments[0]);
        foreach (var method in MonoSymbolFile.ReadSymbolFile(arguments[0] + ".mdb").Methods)
            files[method.Token] = method.CompileUnit.SourceFile.FileName;
        foreach (var type in module.Types) Type(type.FullName, type);
        foreach (var line in lines.OrderBy(line => line, StringComparer.Ordinal)) Console.WriteLine(line);
    }
}
